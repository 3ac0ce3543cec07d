package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
)

// Part is one part of a process. Every function may be nil; a part without Run is work that others call into.
type Part struct {
	// Name stands in logs and errors.
	Name string
	// Start makes the part ready for those that depend on it and returns. Its context ends if the process is to end
	// while it starts; it must not be kept.
	Start func(ctx context.Context) error
	// Run is the part's work. It returns nil when its context ends, or earlier when there is nothing more to do; an error
	// at any time stops the Group.
	Run func(ctx context.Context) error
	// Stop ends the work gracefully, before Run's context ends. It returns when its context ends at the latest.
	Stop func(ctx context.Context) error
}

// runner is a part in a group.
type runner struct {
	Part
	state  atomic.Int32
	cancel context.CancelFunc // ends Run
	ended  chan struct{}      // closed when Run has returned
	err    error              // what Run returned; read it after ended
}

func newRunner(p Part) *runner { return &runner{Part: p, ended: make(chan struct{})} }

// become moves to the next state. An arrow that is not drawn is a bug of this package.
func (r *runner) become(next State) {
	for {
		now := State(r.state.Load())
		if !now.follows(next) {
			panic(fmt.Sprintf("lifecycle: %s went from %v to %v", r.Name, now, next))
		}
		if r.state.CompareAndSwap(int32(now), int32(next)) {
			return
		}
	}
}

// start runs Start and then Run on a goroutine; failed is called if Run fails before it was asked to end.
func (r *runner) start(ctx context.Context, failed func(error)) error {
	r.become(Starting)
	if r.Start != nil {
		if err := r.Start(ctx); err != nil {
			r.become(Failed)
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	r.become(Running)
	// Run outlives ctx: it ends when its turn to stop comes, after those that depend on it.
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.cancel = cancel
	go r.run(run, failed)
	return nil
}

func (r *runner) run(ctx context.Context, failed func(error)) {
	defer close(r.ended)
	if r.Run == nil {
		return
	}
	err := r.Run(ctx)
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return // as asked
	}
	r.err = fmt.Errorf("%s: %w", r.Name, err)
	failed(r.err)
}

// stop ends a running part within ctx and returns the first error of Stop and Run.
func (r *runner) stop(ctx context.Context) error {
	r.become(Stopping)
	var err error
	if r.Stop != nil {
		if err = r.Stop(ctx); err != nil {
			err = fmt.Errorf("stop %s: %w", r.Name, err)
		}
	}
	r.cancel()
	select {
	case <-r.ended:
		err = errors.Join(r.err, err)
	case <-ctx.Done():
		err = errors.Join(fmt.Errorf("%s did not stop in time", r.Name), err)
	}
	if err != nil {
		r.become(Failed)
		return err
	}
	r.become(Stopped)
	return nil
}
