package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/health"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/logging"
	"github.com/holdfastdb/holdfast/services/telemetry"
	"github.com/holdfastdb/holdfast/services/version"
)

// Program is the name of the process and of its traces.
const Program = "proxy"

// flushTimeout bounds the sending of the last spans at the end.
const flushTimeout = 2 * time.Second

// Main is the process: it reads the configuration and runs until the context ends. Errors are one line each.
func Main(ctx context.Context, src config.Source, stdout, stderr io.Writer) (err error) {
	cfg := NewConfig()
	set := config.NewSet(Program)
	cfg.DeclareProcess(set)
	cfg.DeclareClients(set)
	rest, askHealth := health.Asked(src.Args)
	src.Args = rest
	outcome, err := set.Parse(src)
	switch {
	case err != nil:
		return err
	case outcome.Help:
		return set.WriteHelp(stdout)
	case outcome.Version:
		_, err := fmt.Fprint(stdout, version.Text(Program))
		return err
	}
	if askHealth {
		return health.Own(ctx, stdout, "listen-metrics-urls", cfg.ListenMetricsURLs.HostPorts())
	}
	if err := cfg.Finish(); err != nil {
		return err
	}
	logger := logging.New(stderr, cfg.LogLevel.Level(), Program)
	for _, warning := range outcome.Warnings {
		logger.Warn(warning)
	}
	tracing, err := telemetry.Start(ctx, telemetry.Config{
		ServiceName: Program, InstanceID: cfg.Name, OTLPEndpoint: cfg.OTLPEndpoint, SampleRatio: cfg.OTLPSampleRatio,
	})
	if err != nil {
		return err
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		err = errors.Join(err, tracing.Shutdown(flush))
	}()
	registry := telemetry.NewRegistry(Program)
	handler := telemetry.MetricsHandler(registry)
	metricsListeners, err := grpcserver.Listen(ctx, cfg.ListenMetricsURLs.HostPorts()...)
	if err != nil {
		return err
	}
	deps := Dependencies{Logger: logger, Metrics: registry, MetricsHandler: handler}
	if tracing.Enabled() {
		deps.Tracers = tracing.TracerProvider()
	}
	proxy, err := New(ctx, cfg, deps)
	if err != nil {
		for _, l := range metricsListeners {
			err = errors.Join(err, l.Close())
		}
		return err
	}
	metrics := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: proxy.HTTP(handler)}, metricsListeners...)
	// It stops last: until then it says that the proxy drains.
	parts := append([]lifecycle.Part{metrics.Part("metrics server")}, proxy.Parts()...)
	return lifecycle.NewGroup(logger, cfg.DrainDelay+cfg.DrainTimeout+lifecycle.StopWithinDefault, parts...).Run(ctx)
}
