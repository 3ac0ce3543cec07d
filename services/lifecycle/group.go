package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// StopWithinDefault is the time a Group gives its parts to stop if nothing else is said: under the 10 s after which
// container runtimes kill.
const StopWithinDefault = 8 * time.Second

// stopAtLeast is what each part gets to stop even if one before it used up the time of all: a hanging server must not
// keep the storage under it from closing.
const stopAtLeast = 500 * time.Millisecond

// Group runs parts in order. Make one with NewGroup; it runs once.
type Group struct {
	logger     *slog.Logger
	stopWithin time.Duration
	runners    []*runner
	ready      chan struct{}
	failed     chan struct{} // closed at the first failure

	mu    sync.Mutex
	first error // the first failure
}

// NewGroup makes a group of parts in the order of their start: each may depend on those before it. All parts together
// get stopWithin to stop (0 is StopWithinDefault), and each at least half a second.
func NewGroup(logger *slog.Logger, stopWithin time.Duration, parts ...Part) *Group {
	if stopWithin == 0 {
		stopWithin = StopWithinDefault
	}
	g := &Group{
		logger: logger, stopWithin: stopWithin,
		ready: make(chan struct{}), failed: make(chan struct{}),
	}
	for _, p := range parts {
		g.runners = append(g.runners, newRunner(p))
	}
	return g
}

// Ready is closed when every part runs. It stays open if one fails to start.
func (g *Group) Ready() <-chan struct{} { return g.ready }

// State is the state of the part with that name; ok is false if there is none.
func (g *Group) State(name string) (state State, ok bool) {
	for _, r := range g.runners {
		if r.Name == name {
			return State(r.state.Load()), true
		}
	}
	return New, false
}

// Run starts the parts, waits until ctx ends or one fails, and stops those that run, the last started first. It returns
// the first failure, joined with what went wrong while stopping, or nil. Parts that returned nil early are done and
// stop nobody.
func (g *Group) Run(ctx context.Context) error {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a failure also ends the start of those that follow
		select {
		case <-g.failed:
			cancel()
		case <-starting.Done():
		}
	}()
	started := g.start(starting)
	if started == len(g.runners) && starting.Err() == nil {
		close(g.ready)
		<-starting.Done()
	}
	g.stop(context.WithoutCancel(ctx), g.runners[:started])
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.first
}

// stop stops the running parts, the last one first. The context carries values alone: the time to stop must not end
// with what asked for the stop.
func (g *Group) stop(ctx context.Context, running []*runner) {
	deadline := time.Now().Add(g.stopWithin)
	for _, r := range slices.Backward(running) {
		within, done := context.WithTimeout(ctx, max(time.Until(deadline), stopAtLeast))
		if err := r.stop(within); err != nil {
			g.fail(err)
		}
		done()
		g.logger.DebugContext(ctx, "part stopped", "part", r.Name)
	}
}

// start starts parts until one fails or ctx ends, and returns how many run.
func (g *Group) start(ctx context.Context) int {
	for i, r := range g.runners {
		if ctx.Err() != nil {
			return i
		}
		if err := r.start(ctx, g.fail); err != nil {
			// A start that was called off because the process is to end is no failure.
			if ctx.Err() == nil || !errors.Is(err, context.Canceled) {
				g.fail(err)
			}
			return i
		}
		g.logger.DebugContext(ctx, "part runs", "part", r.Name)
	}
	return len(g.runners)
}

// fail records the first failure, which stops the group, and logs the others.
func (g *Group) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.first == nil:
		g.first = err
		close(g.failed)
	case !errors.Is(err, g.first):
		g.logger.Error("failed while stopping", "error", err)
		g.first = errors.Join(g.first, err)
	}
}
