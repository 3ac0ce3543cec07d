package fanout

import (
	"context"
	"sync"

	"github.com/holdfastdb/holdfast/proxy/internal/watch"
)

// Fencer shares fences: everyone who asks while one is under way waits for the next, which begins after they asked.
type Fencer struct {
	take func(context.Context) (watch.Fence, error)

	mu      sync.Mutex
	running bool
	next    *round
}

type round struct {
	done  chan struct{}
	fence watch.Fence
	err   error
}

// NewFencer makes a Fencer; take makes one linearizable read and must end by itself.
func NewFencer(take func(context.Context) (watch.Fence, error)) *Fencer { return &Fencer{take: take} }

// Fence gives a fence that was taken after the call.
func (f *Fencer) Fence(ctx context.Context) (watch.Fence, error) {
	f.mu.Lock()
	if f.next == nil {
		f.next = &round{done: make(chan struct{})}
	}
	r := f.next
	if !f.running {
		f.running = true
		// Not bound to the first caller's context, since others share it.
		go f.rounds(context.WithoutCancel(ctx))
	}
	f.mu.Unlock()
	select {
	case <-r.done:
		return r.fence, r.err
	case <-ctx.Done():
		return watch.Fence{}, ctx.Err()
	}
}

func (f *Fencer) rounds(ctx context.Context) {
	for {
		f.mu.Lock()
		r := f.next
		f.next = nil
		if r == nil {
			f.running = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		r.fence, r.err = f.take(ctx)
		close(r.done)
	}
}
