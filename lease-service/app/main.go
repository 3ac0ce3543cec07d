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
const Program = "lease-service"

// flushTimeout bounds the sending of the last spans at the end.
const flushTimeout = 2 * time.Second

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
	return run(ctx, cfg, logger, stdout)
}

func run(ctx context.Context, cfg *Config, logger *slog.Logger, stdout io.Writer) (err error) {
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
	peers, err := grpcserver.Listen(ctx, cfg.ListenPeerURLs.HostPorts()...)
	if err != nil {
		return err
	}
	observers, err := grpcserver.Listen(ctx, cfg.ListenMetricsURLs.HostPorts()...)
	if err != nil {
		return errors.Join(err, closeAll(peers))
	}
	registry := telemetry.NewRegistry(Program)
	deps := Dependencies{Logger: logger, Metrics: registry}
	if tracing.Enabled() {
		deps.Tracers = tracing.TracerProvider()
	}
	if cfg.NATSURL != "" {
		nats, err := bus.NewNATS(bus.NATSConfig{URL: cfg.NATSURL, Name: cfg.Name, Logger: logger})
		if err != nil {
			return errors.Join(err, closeAll(peers), closeAll(observers))
		}
		defer func() { _ = nats.Close() }() // what it could not send any more nobody relies on
		deps.Bus = nats
	}
	instance, err := New(cfg, deps)
	if err != nil {
		return errors.Join(err, closeAll(peers), closeAll(observers))
	}
	defer instance.Close()
	server := grpcserver.New(grpcserver.Config{Logger: logger, Internal: true}, peers...)
	instance.Register(server)
	server.SetServing(true)
	metrics := grpcserver.New(grpcserver.Config{
		Logger: logger, HTTP: instance.HTTP(telemetry.MetricsHandler(registry)),
	}, observers...)
	parts := append([]lifecycle.Part{metrics.Part("metrics server")}, instance.Parts(server.Part("peer server"))...)
	group := lifecycle.NewGroup(logger, 0, parts...)
	go announceReady(ctx, cfg, instance, stdout)
	return group.Run(ctx)
}

// announceReady says once that the instance answers keepalives.
func announceReady(ctx context.Context, cfg *Config, instance *Instance, stdout io.Writer) {
	const look = 50 * time.Millisecond
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for !instance.Serving() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
	_, _ = fmt.Fprintf(stdout, "%s: ready, name %s\n", Program, cfg.Name)
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
