package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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
const Program = "consensus-node"

// Main is the process: it picks the command, reads the configuration and runs until the context ends. Errors are one line each.
func Main(ctx context.Context, src config.Source, stdout, stderr io.Writer) error {
	if len(src.Args) > 1 && src.Args[0] == "log" && src.Args[1] == "dump" {
		src.Args = src.Args[2:]
		return DumpLog(src, stdout)
	}
	if len(src.Args) > 0 && src.Args[0] == "snapshot" {
		return Snapshot(ctx, Program, src.Args[1:], stdout, stderr)
	}
	rest, askHealth := health.Asked(src.Args)
	src.Args = rest
	cfg := NewConfig()
	set := config.NewSet(Program)
	cfg.DeclareMember(set)
	cfg.DeclareProcess(set)
	outcome, err := set.Parse(src)
	switch {
	case err != nil:
		return err
	case outcome.Help:
		return set.WriteHelp(stdout)
	case outcome.Version:
		_, err := fmt.Fprintln(stdout, version.Text(Program))
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
		ServiceName: Program, InstanceID: cfg.Name, OTLPEndpoint: cfg.OTLPEndpoint, SampleRatio: 1,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shutdown(context.WithoutCancel(ctx), tracing)) }()
	listeners, err := listenAll(ctx, cfg)
	if err != nil {
		return err
	}
	registry := telemetry.NewRegistry(Program)
	deps := Dependencies{Logger: logger, Tracers: tracing.TracerProvider(), Metrics: registry}
	if cfg.NATSURL != "" {
		nats, err := bus.NewNATS(bus.NATSConfig{URL: cfg.NATSURL, Name: cfg.Name, Logger: logger})
		if err != nil {
			return errors.Join(err, listeners.close())
		}
		defer func() { err = errors.Join(err, nats.Close()) }()
		deps.Bus = nats
	}
	if err := Join(ctx, cfg, logger); err != nil {
		return errors.Join(err, listeners.close())
	}
	n, err := Open(cfg, deps) //nolint:contextcheck // closing at a failure must not be cut short
	if err != nil {
		return errors.Join(err, listeners.close())
	}
	defer func() { err = errors.Join(err, n.Close()) }() //nolint:contextcheck // as above

	peers := grpcserver.New(grpcserver.Config{Logger: logger, RecvBytesMax: peerBytesMax, Internal: true}, listeners.peer...)
	n.Register(peers)
	admin := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: n.httpHandler(telemetry.MetricsHandler(registry))}, listeners.admin...)
	n.RegisterAdmin(admin)
	metrics := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: n.httpHandler(telemetry.MetricsHandler(registry))}, listeners.metrics...)
	parts := append(n.Parts(), peers.Part("peer server"), admin.Part("admin server"), metrics.Part("metrics server"), n.LastPart())
	group := lifecycle.NewGroup(logger, 0, parts...)
	announcing, cancel := context.WithCancel(ctx)
	announced := make(chan struct{})
	go func() { defer close(announced); n.announceReady(announcing, group.Ready(), admin, stdout) }()
	defer func() { cancel(); <-announced }()
	return group.Run(ctx)
}

// peerBytesMax bounds one message on the peer address: a raft message of 1 MiB of entries, one of which may be a request at
// its limit, with room.
const peerBytesMax = 64 << 20

// listeners are bound before the data directory is touched, so that a port in use leaves nothing written.
type listeners struct{ peer, admin, metrics []net.Listener }

func listenAll(ctx context.Context, cfg *Config) (l listeners, err error) {
	if l.peer, err = grpcserver.Listen(ctx, cfg.ListenPeerURLs.HostPorts()...); err != nil {
		return l, err
	}
	if l.admin, err = grpcserver.Listen(ctx, cfg.ListenAdminURLs.HostPorts()...); err != nil {
		return l, errors.Join(err, l.close())
	}
	if l.metrics, err = grpcserver.Listen(ctx, cfg.ListenMetricsURLs.HostPorts()...); err != nil {
		return l, errors.Join(err, l.close())
	}
	return l, nil
}

func (l listeners) close() error {
	var errs []error
	for _, list := range [][]net.Listener{l.peer, l.admin, l.metrics} {
		for _, listener := range list {
			errs = append(errs, listener.Close())
		}
	}
	return errors.Join(errs...)
}

// httpHandler serves /metrics and /health.
func (n *Node) httpHandler(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		const patience = 2 * time.Second
		ctx, cancel := context.WithTimeout(r.Context(), patience)
		defer cancel()
		w.Header().Set("Content-Type", "application/json")
		if err := n.Healthy(ctx); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"health":"false","reason":"no linearizable read"}`)
			return
		}
		_, _ = io.WriteString(w, `{"health":"true","reason":""}`)
	})
	return telemetry.WithProfiles(n.cfg.Profiles, mux)
}

// announceReady says that the node serves, once it can answer a linearizable read.
func (n *Node) announceReady(ctx context.Context, started <-chan struct{}, admin *grpcserver.Server, stdout io.Writer) {
	select {
	case <-started:
	case <-ctx.Done():
		return
	}
	if n.Healthy(ctx) != nil { // it waits as long as there is no leader; what ends it is the node's end
		return
	}
	admin.SetServing(true)
	n.log.Info("ready to serve client requests")
	_, _ = fmt.Fprintf(stdout, "%s: ready, name %s\n", Program, n.cfg.Name)
}

func shutdown(ctx context.Context, tracing *telemetry.Telemetry) error {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return tracing.Shutdown(ctx)
}
