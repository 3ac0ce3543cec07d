package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	consensus "github.com/holdfastdb/holdfast/consensus-node/app"
	lease "github.com/holdfastdb/holdfast/lease-service/app"
	proxy "github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/buffers"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/telemetry"
	hub "github.com/holdfastdb/holdfast/watch-hub/app"
)

// peerBytesMax bounds one message on the peer URL: a raft message with one request at its limit, with room.
const peerBytesMax = 64 << 20

// run is the server: all four services in one group, the durable one first and the client side last.
func run(ctx context.Context, s *settings, logger *slog.Logger, stdout io.Writer) (err error) {
	l, err := listen(ctx, s)
	if err != nil {
		return err
	}
	a, err := assemble(ctx, s, logger, l)
	if err != nil {
		return errors.Join(err, l.close())
	}
	defer func() { err = errors.Join(err, a.close()) }()
	group := lifecycle.NewGroup(logger, 0, a.parts...)
	go a.announceReady(ctx, group.Ready(), stdout)
	return group.Run(ctx)
}

// listeners are bound before the data directory is touched, so that a port in use leaves nothing written.
type listeners struct{ peer, client, metrics []net.Listener }

func listen(ctx context.Context, s *settings) (l listeners, err error) {
	for _, bind := range []struct {
		to        *[]net.Listener
		addresses []string
	}{
		{&l.client, s.proxy.ListenClientURLs.HostPorts()},
		{&l.peer, s.node.ListenPeerURLs.HostPorts()},
		{&l.metrics, s.listenMetrics.HostPorts()},
	} {
		if *bind.to, err = grpcserver.Listen(ctx, bind.addresses...); err != nil {
			return l, errors.Join(err, l.close())
		}
	}
	return l, nil
}

func (l listeners) close() error {
	var errs []error
	for _, list := range [][]net.Listener{l.peer, l.client, l.metrics} {
		for _, listener := range list {
			if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// assembly is the four services joined.
type assembly struct {
	parts   []lifecycle.Part
	node    *consensus.Node
	hub     *hub.Hub
	lease   *lease.Instance
	proxy   *proxy.Proxy
	closers []func() error // in the order of use

	settings  *settings
	logger    *slog.Logger
	registry  *prometheus.Registry
	changes   *lane
	inProcess *direct.Conn
	buffers   *buffers.Pool // of the node's long answers, from the proxy back to it
}

func (a *assembly) close() error {
	var errs []error
	for _, closer := range slices.Backward(a.closers) {
		errs = append(errs, closer())
	}
	return errors.Join(errs...)
}

// assemble builds the services from the durable one outwards. Each is reached by the others through the direct binding, and by
// those of other nodes through the server on the peer URLs.
func assemble(ctx context.Context, s *settings, logger *slog.Logger, l listeners) (_ *assembly, err error) {
	a := &assembly{settings: s, logger: logger, registry: telemetry.NewRegistry(program), inProcess: direct.New(program), buffers: &buffers.Pool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.changes, err = newLane(s.busListen, component(logger, "bus")); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.changes.close)
	peers := grpcserver.New(grpcserver.Config{Logger: logger, RecvBytesMax: peerBytesMax, Internal: true}, l.peer...)
	for _, build := range []func(context.Context, grpc.ServiceRegistrar) error{a.buildNode, a.buildHub, a.buildLease} {
		if err := build(ctx, peers); err != nil {
			return nil, err
		}
	}
	if err := a.buildProxy(ctx, l.client); err != nil {
		return nil, err
	}
	further := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: a.proxy.HTTP(telemetry.MetricsHandler(a.registry))}, l.metrics...)
	a.parts = append(a.parts, a.node.Parts()...)
	a.parts = append(a.parts, peers.Part("peer server"), further.Part("metrics server"))
	a.parts = append(a.parts, a.hub.Parts()...)
	a.parts = append(a.parts, a.lease.Parts()...)
	a.parts = append(a.parts, a.proxy.Parts()...)
	a.parts = append(a.parts, a.node.LastPart())
	return a, nil
}

func (a *assembly) buildNode(ctx context.Context, peers grpc.ServiceRegistrar) error {
	tracers, changes, err := a.common(ctx, consensus.Program)
	if err != nil {
		return err
	}
	if err := consensus.Join(ctx, a.settings.node, component(a.logger, consensus.Program)); err != nil {
		return err
	}
	a.node, err = consensus.Open(a.settings.node, consensus.Dependencies{ //nolint:contextcheck // closing at a failure must not be cut short
		Logger: component(a.logger, consensus.Program), Tracers: tracers, Metrics: a.registry, Bus: changes, Buffers: a.buffers, SpeakAlways: true,
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, a.node.Close, func() error { a.inProcess.Close(); return nil })
	a.node.Register(peers)
	a.node.RegisterConsensus(a.inProcess)
	return nil
}

func (a *assembly) buildHub(ctx context.Context, peers grpc.ServiceRegistrar) error {
	tracers, changes, err := a.common(ctx, hub.Program)
	if err != nil {
		return err
	}
	cfg := hub.NewConfig()
	cfg.WatchBufferBytes = max(a.settings.node.FeedBufferBytes, hub.WatchBufferBytesMin) // the very changes that the node keeps
	cfg.Name, cfg.Address, cfg.ConsensusEndpoints = a.settings.node.Name, a.own()[0], a.endpoints()
	a.hub, err = hub.New(cfg, hub.Dependencies{
		Logger: component(a.logger, hub.Program), Tracers: tracers, Metrics: a.registry, Bus: changes, Prefer: cfg.Address,
		Dial: func(address string) (hub.Conn, error) { return a.dial(address) },
	})
	if err != nil {
		return err
	}
	a.hub.Register(peers)
	a.hub.Register(a.inProcess)
	return nil
}

func (a *assembly) buildLease(ctx context.Context, peers grpc.ServiceRegistrar) error {
	tracers, changes, err := a.common(ctx, lease.Program)
	if err != nil {
		return err
	}
	a.lease, err = lease.New(a.settings.lease, lease.Dependencies{
		Logger: component(a.logger, lease.Program), Tracers: tracers, Metrics: a.registry, Bus: changes,
		Dial: func(address string) (lease.Conn, error) { return a.dial(address) },
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, func() error { a.lease.Close(); return nil })
	a.lease.Register(peers)
	a.lease.Register(a.inProcess)
	return nil
}

func (a *assembly) buildProxy(ctx context.Context, clients []net.Listener) error {
	tracers, err := a.tracers(ctx, proxy.Program)
	if err != nil {
		return err
	}
	a.proxy, err = proxy.New(ctx, a.settings.proxy, proxy.Dependencies{
		Logger: component(a.logger, proxy.Program), Tracers: tracers, Metrics: a.registry,
		MetricsHandler: telemetry.MetricsHandler(a.registry), ClientListeners: clients, Buffers: a.buffers,
		Dial: func(address string) (proxy.Conn, error) { return a.dial(address) },
	})
	return err
}

// common is what a part on the bus needs.
func (a *assembly) common(ctx context.Context, name string) (trace.TracerProvider, bus.Bus, error) {
	tracers, err := a.tracers(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	connection, err := a.connect(name)
	return tracers, connection, err
}

// connect gives a part its connection to the bus, which ends with the process.
func (a *assembly) connect(name string) (bus.Bus, error) {
	connection, err := a.changes.connect(name)
	if err == nil {
		a.closers = append(a.closers, connection.Close)
	}
	return connection, err
}

// component is the logger of one of the services.
func component(logger *slog.Logger, name string) *slog.Logger { return logger.With("component", name) }

// tracers makes the traces of one of the services: all are of the service holdfast and say which part they come from. They are nil
// while tracing is off.
func (a *assembly) tracers(ctx context.Context, name string) (trace.TracerProvider, error) {
	tracing, err := telemetry.Start(ctx, telemetry.Config{
		ServiceName: program, Component: name, InstanceID: a.settings.node.Name, OTLPEndpoint: a.settings.otlpEndpoint, SampleRatio: a.settings.otlpRatio,
		Logger: component(a.logger, name),
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, func() error {
		const patience = 2 * time.Second
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		return tracing.Shutdown(bounded)
	})
	return tracing.TracerProvider(), nil
}

// shared is the direct binding as a connection that one of its users may close without ending it for the others.
type shared struct{ *direct.Conn }

// Close does nothing: the process closes the binding at its end.
func (shared) Close() error { return nil }

// connection is what dial gives: each of the services names such a type of its own.
type connection interface {
	grpc.ClientConnInterface
	Close() error
}

// dial reaches this process's own services by function calls and all others over the network.
func (a *assembly) dial(address string) (connection, error) {
	if slices.Contains(a.own(), address) {
		return shared{a.inProcess}, nil
	}
	return grpcclient.Dial(grpcclient.Config{}, address)
}

// own are the addresses under which others know this process.
func (a *assembly) own() []string { return a.settings.node.AdvertisePeerURLs.HostPorts() }

// endpoints are the addresses of the first members, this process's first.
func (a *assembly) endpoints() []string {
	var addresses []string
	for _, text := range a.settings.proxy.ConsensusEndpoints {
		if u, err := url.Parse(text); err == nil { // they were checked when the flags were read
			addresses = append(addresses, u.Host)
		}
	}
	return addresses
}

// announceReady prints the ready line once every part answers.
func (a *assembly) announceReady(ctx context.Context, started <-chan struct{}, stdout io.Writer) {
	for _, ready := range []<-chan struct{}{started, a.proxy.Ready()} {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
	}
	const look = 10 * time.Millisecond
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	for !a.node.Listed() || !a.hub.Following() || !a.lease.Serving() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
	_, _ = fmt.Fprintf(stdout, "holdfast: ready, clients at %s\n", strings.Join(a.settings.proxy.AdvertiseClientURLs.Strings(), ","))
}
