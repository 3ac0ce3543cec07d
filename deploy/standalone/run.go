package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	consensus "github.com/holdfastdb/holdfast/consensus-node/app"
	proxy "github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/telemetry"
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
	go a.announceReady(ctx, group.Ready(), s, stdout)
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
	proxy   *proxy.Proxy
	ready   []<-chan struct{} // of the parts that say when they answer
	closers []func() error    // in the order of use
}

func (a *assembly) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	return errors.Join(errs...)
}

func assemble(ctx context.Context, s *settings, logger *slog.Logger, l listeners) (_ *assembly, err error) {
	a := &assembly{}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	registry := telemetry.NewRegistry(program)
	metrics := telemetry.MetricsHandler(registry)
	changes, err := newLane(s.busListen, component(logger, "bus"))
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, changes.close)
	inProcess := direct.New(program)
	peers := grpcserver.New(grpcserver.Config{Logger: logger, RecvBytesMax: peerBytesMax, Internal: true}, l.peer...)
	dial := dialer(s.node.AdvertisePeerURLs.HostPorts(), inProcess)

	tracers, err := a.tracers(ctx, s, consensus.Program)
	if err != nil {
		return nil, err
	}
	published, err := a.connect(changes, consensus.Program)
	if err != nil {
		return nil, err
	}
	a.node, err = consensus.Open(s.node, consensus.Dependencies{
		Logger: component(logger, consensus.Program), Tracers: tracers, Metrics: registry, Bus: published, SpeakAlways: true,
	})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.node.Close, func() error { inProcess.Close(); return nil })
	a.node.Register(peers)
	a.node.RegisterConsensus(inProcess)

	if tracers, err = a.tracers(ctx, s, proxy.Program); err != nil {
		return nil, err
	}
	a.proxy, err = proxy.New(ctx, s.proxy, proxy.Dependencies{
		Logger: component(logger, proxy.Program), Tracers: tracers, Metrics: registry, MetricsHandler: metrics,
		ClientListeners: l.client, Dial: dial,
	})
	if err != nil {
		return nil, err
	}
	a.ready = append(a.ready, a.proxy.Ready())

	further := grpcserver.New(grpcserver.Config{Logger: logger, HTTP: a.proxy.HTTP(metrics)}, l.metrics...)
	a.parts = append(a.parts, a.node.Parts()...)
	a.parts = append(a.parts, peers.Part("peer server"), further.Part("metrics server"))
	a.parts = append(a.parts, a.proxy.Parts()...)
	return a, nil
}

// connect gives a part its connection to the bus, which ends with the process.
func (a *assembly) connect(changes *lane, name string) (bus.Bus, error) {
	connection, err := changes.connect(name)
	if err == nil {
		a.closers = append(a.closers, connection.Close)
	}
	return connection, err
}

// component is the logger of one of the services.
func component(logger *slog.Logger, name string) *slog.Logger { return logger.With("component", name) }

// tracers makes the traces of one of the services: all are of the service holdfast and say which part they come from. They are nil
// while tracing is off.
func (a *assembly) tracers(ctx context.Context, s *settings, name string) (trace.TracerProvider, error) {
	tracing, err := telemetry.Start(ctx, telemetry.Config{
		ServiceName: program, Component: name, InstanceID: s.node.Name, OTLPEndpoint: s.otlpEndpoint, SampleRatio: 1,
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

// dialer reaches this process's own services by function calls and all others over the network.
func dialer(own []string, inProcess *direct.Conn) func(address string) (proxy.Conn, error) {
	return func(address string) (proxy.Conn, error) {
		for _, mine := range own {
			if address == mine {
				return shared{inProcess}, nil
			}
		}
		return grpcclient.Dial(grpcclient.Config{}, address)
	}
}

// announceReady prints the ready line once every part answers.
func (a *assembly) announceReady(ctx context.Context, started <-chan struct{}, s *settings, stdout io.Writer) {
	for _, ready := range append([]<-chan struct{}{started}, a.ready...) {
		select {
		case <-ready:
		case <-ctx.Done():
			return
		}
	}
	_, _ = fmt.Fprintf(stdout, "holdfast: ready, clients at %s\n", strings.Join(s.proxy.AdvertiseClientURLs.Strings(), ","))
}
