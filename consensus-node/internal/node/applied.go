package node

import (
	"context"
	"sync"
)

// progress lets readers wait until a number (an index, a revision, a sequence) is reached.
type progress struct {
	mu      sync.Mutex
	reached uint64
	waiters []progressWaiter
}

type progressWaiter struct {
	at   uint64
	done chan struct{}
}

// advance tells that everything up to n is reached.
func (p *progress) advance(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n <= p.reached {
		return
	}
	p.reached = n
	keep := p.waiters[:0]
	for _, w := range p.waiters {
		if w.at <= n {
			close(w.done)
		} else {
			keep = append(keep, w)
		}
	}
	clear(p.waiters[len(keep):])
	p.waiters = keep
}

// value is how far it came.
func (p *progress) value() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

// wait returns nil once n is reached, or the context's error.
func (p *progress) wait(ctx context.Context, n uint64) error {
	p.mu.Lock()
	if n <= p.reached {
		p.mu.Unlock()
		return nil
	}
	w := progressWaiter{at: n, done: make(chan struct{})}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		p.drop(w.done)
		return ctx.Err()
	}
}

func (p *progress) drop(done chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, w := range p.waiters {
		if w.done == done {
			p.waiters = append(p.waiters[:i], p.waiters[i+1:]...)
			return
		}
	}
}
