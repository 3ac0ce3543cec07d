package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/health"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/logging"
	"github.com/holdfastdb/holdfast/services/telemetry"
	"github.com/holdfastdb/holdfast/services/version"
)

// Program is the name of the process and of its traces.
const Program = "watch-hub"

const (
	// flushTimeout bounds the sending of the last spans at the end.
	flushTimeout = 2 * time.Second
	// requestBytesMax bounds one message of a proxy: a batch of registrations, whose keys are a client's.
	requestBytesMax = 64 << 20
)

// Main is the process: it reads the configuration and runs until the context ends. Errors are one line each.
func Main(ctx context.Context, src config.Source, stdout, stderr io.Writer) error {
	cfg := NewConfig()
	set := config.NewSet(Program)
	cfg.DeclareProcess(set)
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
	return run(ctx, cfg, logger)
}

func run(ctx context.Context, cfg *Config, logger *slog.Logger) (err error) {
	tracing, err := telemetry.Start(ctx, telemetry.Config{
		ServiceName: Program, InstanceID: cfg.Name, OTLPEndpoint: cfg.OTLPEndpoint, SampleRatio: 1,
	})
	if err != nil {
		return err
	}
	defer func() {
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		err = errors.Join(err, tracing.Shutdown(flush))
	}()
	peerListeners, metricsListeners, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry(Program)
	deps := Dependencies{Logger: logger, Metrics: registry}
	if tracing.Enabled() {
		deps.Tracers = tracing.TracerProvider()
	}
	if cfg.NATSURL != "" {
		nats, err := bus.NewNATS(bus.NATSConfig{URL: cfg.NATSURL, Name: cfg.Name, Logger: logger})
		if err != nil {
			return errors.Join(err, closeAll(peerListeners), closeAll(metricsListeners))
		}
		defer func() { err = errors.Join(err, nats.Close()) }()
		deps.Bus = nats
	}
	h, err := New(cfg, deps)
	if err != nil {
		return errors.Join(err, closeAll(peerListeners), closeAll(metricsListeners))
	}
	peers := grpcserver.New(grpcserver.Config{Logger: logger, RecvBytesMax: requestBytesMax, Internal: true}, peerListeners...)
	h.Register(peers)
	metrics := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: h.HTTP(telemetry.MetricsHandler(registry))}, metricsListeners...)
	// The server starts before the hub says where it is, and stops after the hub has asked its proxies to leave.
	parts := append([]lifecycle.Part{peers.Part("peer server")}, h.Parts()...)
	parts = append(parts, metrics.Part("metrics server"))
	peers.SetServing(true)
	return lifecycle.NewGroup(logger, 0, parts...).Run(ctx)
}

// listen binds everything before anything else is done.
func listen(ctx context.Context, cfg *Config) (peers, metrics []net.Listener, err error) {
	if peers, err = grpcserver.Listen(ctx, cfg.ListenPeerURLs.HostPorts()...); err != nil {
		return nil, nil, err
	}
	if metrics, err = grpcserver.Listen(ctx, cfg.ListenMetricsURLs.HostPorts()...); err != nil {
		return nil, nil, errors.Join(err, closeAll(peers))
	}
	return peers, metrics, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
