package app

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/lifecycle"
	"github.com/holdfastdb/holdfast/services/telemetry"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/engine"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/source"
	"github.com/holdfastdb/holdfast/watch-hub/internal/topology"
)

// Conn is a connection to a consensus node, over the network or direct.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Dependencies are what a hub gets from the process that it is part of.
type Dependencies struct {
	Logger *slog.Logger
	// Tracers makes the tracer; nil turns tracing off, and then it costs nothing.
	Tracers trace.TracerProvider
	// Metrics takes the hub's metrics; nil keeps them to the hub.
	Metrics prometheus.Registerer
	// Bus carries the change feed; nil: the hub follows a node's stream.
	Bus bus.Bus
	// Dial connects to a consensus node at host:port, without waiting for it; nil dials over the network. Standalone
	// answers for its own address with a direct binding, whose Close may do nothing.
	Dial func(address string) (Conn, error)
	// Prefer is the address of the node that is asked first for what was missed; empty: any.
	Prefer string
	// Run changes at each start of the process; 0 takes the time.
	Run uint64
}

// Hub is one watch-hub. Make one with New.
type Hub struct {
	config   *Config
	deps     Dependencies
	pool     *pool
	topology *topology.Follower
	engine   *engine.Engine
}

// New makes a hub; it listens nowhere and nothing runs yet. The error is of kind failure.Config.
func New(config *Config, deps Dependencies) (*Hub, error) {
	if err := config.Finish(); err != nil {
		return nil, err
	}
	if deps.Dial == nil {
		deps.Dial = func(address string) (Conn, error) { return grpcclient.Dial(grpcclient.Config{}, address) }
	}
	if deps.Run == 0 {
		deps.Run = uint64(time.Now().UnixNano())
	}
	h := &Hub{config: config, deps: deps, pool: &pool{dial: deps.Dial, conns: map[string]Conn{}}}
	h.topology = topology.New(topology.Config{
		Endpoints: config.ConsensusEndpoints,
		Announcement: &consensusv1.Announcement{
			Kind: consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB, Name: config.Name, Run: deps.Run, Address: config.Address,
		},
		Dial: h.pool.get, Release: h.pool.release, Log: deps.Logger,
	})
	var tracer trace.Tracer
	if deps.Tracers != nil {
		tracer = deps.Tracers.Tracer("github.com/holdfastdb/holdfast/watch-hub")
	}
	h.engine = engine.New(engine.Config{
		Name: config.Name, WindowBytes: int(config.WatchBufferBytes), Limits: hub.DefaultLimits(), Egress: egress.DefaultLimits(),
		Bus: deps.Bus, Nodes: source.NewNodes(h.topology, h.pool.get, deps.Prefer), Topology: h.topology,
		Metrics: engine.NewMetrics(deps.Metrics), Tracer: tracer, Log: deps.Logger,
	})
	return h, nil
}

// Register puts the hub's service on a server or a direct binding. Call it before that serves; it may be called for several.
func (h *Hub) Register(registrar grpc.ServiceRegistrar) {
	watchv1.RegisterHubServer(registrar, h.engine)
}

// Following tells whether the hub has heard the changes of a cluster.
func (h *Hub) Following() bool { return h.engine.Following() }

// Parts are the hub's parts in the order of their start; they stop in the reverse order.
func (h *Hub) Parts() []lifecycle.Part {
	return []lifecycle.Part{
		{Name: "watch-hub connections", Stop: func(context.Context) error { return h.pool.close() }},
		{Name: "watch-hub topology", Run: func(ctx context.Context) error { h.topology.Run(ctx); return nil }},
		{Name: "watch-hub", Run: h.engine.Run, Stop: h.leave},
	}
}

// leaveMax bounds how long a hub that stops waits for its proxies to move to another: where there is none they stay.
const leaveMax = time.Second

// leave tells everybody that the hub goes, and gives proxies a moment to move.
func (h *Hub) leave(ctx context.Context) error {
	h.topology.Drain()
	ctx, cancel := context.WithTimeout(ctx, leaveMax)
	defer cancel()
	h.engine.Drain(ctx)
	return nil
}

// Run runs the hub until the context ends.
func (h *Hub) Run(ctx context.Context) error {
	return lifecycle.NewGroup(h.deps.Logger, 0, h.Parts()...).Run(ctx)
}

// HTTP serves /metrics and /health. A hub is healthy once it follows the changes of a cluster.
func (h *Hub) HTTP(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !h.Following() {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"health":"false","reason":"no consensus node reached"}`)
			return
		}
		_, _ = io.WriteString(w, `{"health":"true","reason":""}`)
	})
	return telemetry.WithProfiles(h.config.Profiles, mux)
}

// pool keeps one connection to each node.
type pool struct {
	dial func(address string) (Conn, error)

	mu     sync.Mutex
	conns  map[string]Conn
	closed bool
}

var errClosed = errors.New("app: the hub has stopped")

func (p *pool) get(address string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if conn, ok := p.conns[address]; ok {
		return conn, nil
	}
	conn, err := p.dial(address)
	if err != nil {
		return nil, err
	}
	p.conns[address] = conn
	return conn, nil
}

// release closes the connection to a node that is no longer a member; streams on it break.
func (p *pool) release(address string) {
	p.mu.Lock()
	conn := p.conns[address]
	delete(p.conns, address)
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // nothing is left to lose on it
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = map[string]Conn{}, true
	p.mu.Unlock()
	var errs []error
	for _, conn := range conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
