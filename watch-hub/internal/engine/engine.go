package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/source"
	"github.com/holdfastdb/holdfast/watch-hub/internal/topology"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// Config is what an Engine needs.
type Config struct {
	Name        string
	WindowBytes int
	Limits      hub.Limits
	Egress      egress.Limits
	Bus         bus.Bus // may be nil
	Nodes       *source.Nodes
	Topology    *topology.Follower
	Metrics     *Metrics
	// Tracer may be nil: no spans are made then.
	Tracer trace.Tracer
	Log    *slog.Logger
}

const (
	// tickEvery is how often the core may try again what has to wait.
	tickEvery = 100 * time.Millisecond
	// callsMax bounds what waits for the engine's goroutine; whoever brings more waits.
	callsMax = 256
	// callsPerTurn bounds what is taken in before effects are carried out.
	callsPerTurn = 64
)

// Engine runs one hub. Make one with New.
type Engine struct {
	watchv1.UnimplementedHubServer

	config  Config
	calls   chan func()
	started chan struct{}
	stopped chan struct{}
	tasks   sync.WaitGroup

	// What follows belongs to the goroutine of Run.

	core    *hub.Core
	streams map[uint64]*stream
	passes  map[uint64]*passTask
	repair  repair
	leaving bool
	// watched is the subject on which nodes are told that somebody watches; said is when they were last, zero if nobody does.
	watched string
	said    time.Time

	lastID    atomic.Uint64
	hasLeader atomic.Bool
	following atomic.Bool
}

// New makes an Engine.
func New(config Config) *Engine {
	return &Engine{
		config: config, calls: make(chan func(), callsMax), started: make(chan struct{}), stopped: make(chan struct{}),
		streams: map[uint64]*stream{}, passes: map[uint64]*passTask{},
	}
}

// Following tells whether the hub has a position in the feed.
func (e *Engine) Following() bool { return e.following.Load() }

// Run waits for a consensus node to say which cluster this is, and then runs the hub until the context ends.
func (e *Engine) Run(ctx context.Context) error {
	defer close(e.stopped)
	clusterID := e.awaitCluster(ctx)
	if clusterID == 0 {
		return nil
	}
	e.watched = source.WatchedSubject(clusterID)
	e.core = hub.New(hub.Config{
		ClusterID: clusterID, WindowBytes: e.config.WindowBytes, Limits: e.config.Limits, Follower: window.DefaultLimits(),
	})
	ctx, cancel := context.WithCancel(ctx)
	defer e.tasks.Wait()
	defer cancel()
	feeder := source.NewFeeder(source.FeederConfig{
		Name: e.config.Name, ClusterID: clusterID, Bus: e.config.Bus, Nodes: e.config.Nodes, Topology: e.config.Topology,
		Receive: func(m *feedv1.Message, header bus.Header) { e.receive(ctx, m, header) },
		Gap:     func(cause string) { e.config.Metrics.gaps.WithLabelValues(cause).Inc() },
		Log:     e.config.Log,
	})
	failed := make(chan error, 1)
	e.tasks.Go(func() {
		if err := feeder.Run(ctx); err != nil {
			failed <- err
		}
	})
	e.config.Log.Info("following the changes of a cluster", "cluster_id", fmt.Sprintf("%016x", clusterID))
	close(e.started)
	return e.loop(ctx, failed)
}

// awaitCluster gives the cluster's id, or 0 if the context ends.
func (e *Engine) awaitCluster(ctx context.Context) uint64 {
	for {
		state, changed := e.config.Topology.State()
		if state.ClusterID != 0 {
			return state.ClusterID
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0
		}
	}
}

// loop is the goroutine that owns the core.
func (e *Engine) loop(ctx context.Context, failed <-chan error) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	idle := make(chan struct{})
	busy := make(chan struct{})
	close(busy)
	for more := false; ; {
		// With work left the loop does not wait, but looks at what came in between two steps.
		ready := idle
		if more {
			ready = busy
		}
		select {
		case call := <-e.calls:
			call()
			e.takeMore()
		case <-ticker.C:
			e.core.Tick()
			e.config.Metrics.observe(e.core.Stats(), time.Now())
		case <-ready:
		case err := <-failed:
			return err
		case <-ctx.Done():
			return nil
		}
		more = e.core.Work()
		e.carryOut(ctx)
	}
}

func (e *Engine) takeMore() {
	for range callsPerTurn {
		select {
		case call := <-e.calls:
			call()
		default:
			return
		}
	}
}

// post hands something to the engine's goroutine; false if the context or the engine has ended.
func (e *Engine) post(ctx context.Context, call func()) bool {
	select {
	case e.calls <- call:
		return true
	case <-e.stopped:
		return false
	case <-ctx.Done():
		return false
	}
}

// receive takes in a message of the feed.
func (e *Engine) receive(ctx context.Context, m *feedv1.Message, header bus.Header) {
	e.post(ctx, func() {
		started := time.Now()
		e.core.Receive(m)
		e.trace(ctx, started, header)
		e.following.Store(true)
		e.hasLeader.Store(e.core.HasLeader())
	})
}

// carryOut does what the core asks for, and sees to it that queues are emptied and gaps repaired.
func (e *Engine) carryOut(ctx context.Context) {
	for _, effect := range e.core.Take() {
		switch effect := effect.(type) {
		case hub.StartHistory:
			e.startPass(ctx, effect)
		case hub.Processed:
			if p := e.passes[effect.Pass]; p != nil {
				p.processed <- struct{}{}
			}
		case hub.StopHistory:
			if p := e.passes[effect.Pass]; p != nil {
				p.cancel()
				delete(e.passes, effect.Pass)
			}
		case hub.LookUp:
			e.lookUp(ctx, effect)
		}
	}
	for _, s := range e.streams {
		s.arm()
	}
	e.mend(ctx)
	e.sayWatched(time.Now())
}

// watchedEvery is how often nodes are told that somebody watches; the first time at once.
const watchedEvery = time.Second

func (e *Engine) sayWatched(now time.Time) {
	switch {
	case e.config.Bus == nil:
	case !e.core.Watched():
		e.said = time.Time{}
	case now.Sub(e.said) >= watchedEvery:
		// A bus that does not carry it carries no changes either.
		_ = e.config.Bus.Publish(e.watched, nil, nil)
		e.said = now
	}
}
