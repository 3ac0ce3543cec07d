package app

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/edge"
	"github.com/holdfastdb/holdfast/proxy/internal/fanout"
	"github.com/holdfastdb/holdfast/proxy/internal/lease"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
	"github.com/holdfastdb/holdfast/proxy/internal/upstream"
	"github.com/holdfastdb/holdfast/proxy/internal/watch"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
	"github.com/holdfastdb/holdfast/services/buffers"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// Conn is a connection to another service, over the network or direct.
type Conn = upstream.Conn

// Dependencies are what a proxy is given by its process.
type Dependencies struct {
	Logger *slog.Logger
	// Tracers makes the tracer; nil or the API's no-op provider turns tracing off, and then it costs nothing.
	Tracers trace.TracerProvider
	// Metrics takes the proxy's metrics; MetricsHandler, if not nil, is served at /metrics of the client port.
	Metrics        prometheus.Registerer
	MetricsHandler http.Handler
	// ClientListeners are served to clients; nil binds Config.ListenClientURLs.
	ClientListeners []net.Listener
	// Dial connects to a consensus node, watch-hub or lease-service at host:port, without waiting for it; nil dials over
	// the network. Standalone answers for its own addresses with direct bindings, whose Close may do nothing.
	Dial func(address string) (Conn, error)
	// Buffers gets the memory of answers to ranges once they are sent. Not nil only where a node in the same process makes them and nobody else
	// reads them.
	Buffers *buffers.Pool
	// Run changes at each start of the process; 0 takes the time.
	Run uint64
}

// Proxy is one proxy. Make one with New.
type Proxy struct {
	config   *Config
	log      *slog.Logger
	pool     *upstream.Pool
	topology *topology.Follower
	monitor  *topology.Monitor
	calls    *calls.Client
	hubs     *fanout.Hubs
	leases   *lease.Instances
	edge     *edge.Edge
	server   *grpcserver.Server
	ready    chan struct{}
}

// clientWorkers is how many calls at a time find a goroutine that has run before.
const clientWorkers = 1024

// New makes a proxy and binds its client listeners; nothing runs yet. The error is of kind failure.Config.
func New(ctx context.Context, config *Config, deps Dependencies) (*Proxy, error) {
	if err := config.Finish(); err != nil {
		return nil, err
	}
	listeners := deps.ClientListeners
	if listeners == nil {
		var err error
		if listeners, err = grpcserver.Listen(ctx, config.ListenClientURLs.HostPorts()...); err != nil {
			return nil, err
		}
	}
	if deps.Run == 0 {
		deps.Run = uint64(time.Now().UnixNano())
	}
	p := &Proxy{config: config, log: deps.Logger, ready: make(chan struct{})}
	metrics := p.wire(deps)
	sent, received := metrics.Bytes()
	p.server = grpcserver.New(grpcserver.Config{
		Logger: deps.Logger, HTTP: p.HTTP(deps.MetricsHandler),
		RecvBytesMax: int(config.RequestBytesMax) + requestOverhead, Workers: clientWorkers, GraceMax: config.DrainTimeout,
		ConnectionAgeMax: config.ConnectionAgeMax, ConnectionGrace: config.ConnectionGrace,
		Options: []grpc.ServerOption{
			grpc.ForceServerCodecV2(wire.NewCodec(encoding.GetCodecV2(grpcproto.Name), sent, received)),
			grpc.Creds(edge.Connections(insecure.NewCredentials())),
			grpc.MaxSendMsgSize(math.MaxInt32),
		},
	}, listeners...)
	p.edge.Register(p.server) //nolint:contextcheck // each call has its own
	return p, nil
}

// wire joins the parts.
func (p *Proxy) wire(deps Dependencies) *edge.Metrics {
	if deps.Dial == nil {
		deps.Dial = dial
	}
	var tracer trace.Tracer
	if _, off := deps.Tracers.(noop.TracerProvider); deps.Tracers != nil && !off {
		tracer = deps.Tracers.Tracer("github.com/holdfastdb/holdfast/proxy")
	}
	p.pool = upstream.NewPool(deps.Dial)
	p.topology = topology.New(topology.Config{
		Own: p.config.Own, Endpoints: p.config.ConsensusEndpoints, Name: p.config.Name, Run: deps.Run, Pool: p.pool, Log: p.log,
	})
	p.monitor = topology.NewMonitor(p.topology, p.config.election())
	p.calls = calls.New(calls.Config{
		Name: p.config.Name, Pool: p.pool, Topology: p.topology, Limits: batch.DefaultLimits(),
		Timeout: requestBase + 2*p.config.election(),
	})
	metrics := edge.NewMetrics(deps.Metrics, p.config.Metrics.String() == "extensive")
	observer := edge.NewObserver(metrics, tracer)
	p.hubs = fanout.NewHubs(fanout.HubsConfig{Name: p.config.Name, Pool: p.pool, Topology: p.topology, Seen: observer, Log: p.log})
	limits := watch.DefaultLimits()
	limits.BufferBytes = int(p.config.WatchBufferBytes)
	limits.FragmentBytes = int(p.config.RequestBytesMax) + requestOverhead
	p.leases = lease.NewInstances(p.pool, p.topology, batch.DefaultLimits())
	removal := p.config.RemovalTime
	if removal == 0 {
		removal = lease.RemovalTimeDefault
	}
	p.edge = edge.New(edge.Config{
		Calls: p.calls,
		Watches: fanout.NewServer(fanout.Config{
			Hubs: p.hubs, Fencer: fanout.NewFencer(p.fence), Limits: limits,
			NotifyInterval: p.config.WatchNotifyInterval, Observer: observer, Log: p.log,
		}),
		Leases:   lease.NewService(p.leases, p.topology, p.calls, removal, p.log),
		Topology: p.topology, Monitor: p.monitor, Metrics: metrics, Tracer: tracer, Buffers: deps.Buffers,
	})
	return metrics
}

func dial(address string) (Conn, error) { return grpcclient.Dial(grpcclient.Config{}, address) }

// fence asks the consensus tier where a linearizable observer stands.
func (p *Proxy) fence(ctx context.Context) (watch.Fence, error) {
	request, err := proto.Marshal(&consensusv1.FenceRequest{})
	if err != nil {
		return watch.Fence{}, fmt.Errorf("app: %w", err)
	}
	answer, err := p.calls.Do(ctx, &calls.Call{
		Method: consensusv1.Method_METHOD_FENCE, Class: routing.Linearizable, Request: request,
	})
	if err != nil {
		return watch.Fence{}, err
	}
	var fence consensusv1.FenceResponse
	if err := proto.Unmarshal(answer.GetResponse(), &fence); err != nil {
		return watch.Fence{}, fmt.Errorf("app: malformed fence: %w", err)
	}
	return watch.Fence{
		Header: wire.Header{
			ClusterID: fence.GetClusterId(), MemberID: fence.GetMemberId(),
			Revision: fence.GetRevision(), Term: fence.GetTerm(),
		},
		CompactRevision: fence.GetCompactRevision(),
	}, nil
}

// Addresses are the client addresses that are bound.
func (p *Proxy) Addresses() []net.Addr { return p.server.Addresses() }

// HTTP serves /health, /version and metrics, for a port of their own.
func (p *Proxy) HTTP(metrics http.Handler) http.Handler {
	return telemetry.WithProfiles(p.config.Profiles, p.edge.HTTP(metrics))
}

// Ready is closed when a leader was first reached: from then on client requests are served.
func (p *Proxy) Ready() <-chan struct{} { return p.ready }

// Parts are the proxy's parts in the order of their start; they stop in the reverse order, the client side first.
func (p *Proxy) Parts() []lifecycle.Part {
	endless := func(run func(context.Context)) func(context.Context) error {
		return func(ctx context.Context) error { run(ctx); return nil }
	}
	closing := func(closers ...func()) func(context.Context) error {
		return func(context.Context) error {
			for _, c := range closers {
				c()
			}
			return nil
		}
	}
	return []lifecycle.Part{
		{Name: "proxy connections", Stop: closing(p.pool.Close)},
		{Name: "proxy topology", Run: endless(p.topology.Run)},
		{Name: "proxy leader monitor", Run: endless(p.monitor.Run)},
		{Name: "proxy calls", Stop: closing(p.calls.Close)},
		{Name: "proxy watch-hubs", Run: endless(p.hubs.Run)},
		{Name: "proxy lease-services", Run: endless(p.leases.Run), Stop: closing(p.leases.Close)},
		{Name: "proxy readiness", Run: endless(p.readiness)},
		p.clients(),
	}
}

// clients is the client side, which stops by draining: health says so first and for Config.DrainDelay nothing else changes, then the
// connections are asked to go elsewhere, and what is under way has Config.DrainTimeout to end.
func (p *Proxy) clients() lifecycle.Part {
	part := p.server.Part("proxy clients")
	stop := part.Stop
	part.Stop = func(ctx context.Context) error {
		p.edge.Drain()
		p.server.SetServing(false)
		select {
		case <-time.After(p.config.DrainDelay):
		case <-ctx.Done():
		}
		return stop(ctx)
	}
	return part
}

// readiness tells the health service, and says once that the proxy is ready.
func (p *Proxy) readiness(ctx context.Context) {
	said := false
	p.edge.FollowReadiness(ctx, func(serving bool) {
		p.server.SetServing(serving && !p.edge.Draining())
		if serving && !said {
			said = true
			close(p.ready)
			p.log.Info("ready to serve client requests", "urls", strings.Join(p.config.AdvertiseClientURLs.Strings(), ","))
		}
	})
}

// Run runs the proxy until the context ends.
func (p *Proxy) Run(ctx context.Context) error {
	return lifecycle.NewGroup(p.log, 0, p.Parts()...).Run(ctx)
}
