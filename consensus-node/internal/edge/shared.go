package edge

import (
	"context"
	"sync"
)

// sharedWork is work that many may ask for and that only one does at a time. Who asks while it is under way gets the next run, together with
// all others who ask until that begins: callers who give up and come again make no queue of work.
type sharedWork struct {
	mu   sync.Mutex
	busy bool       // a goroutine is at work
	next *sharedRun // that has not begun, nil if nobody waits for one
}

type sharedRun struct {
	done chan struct{}
	err  error
}

// do has the work done from a moment after the call, and gives its error. The work goes on if ctx ends before.
func (s *sharedWork) do(ctx context.Context, work func() error) error {
	s.mu.Lock()
	if s.next == nil {
		s.next = &sharedRun{done: make(chan struct{})}
	}
	run := s.next
	if !s.busy {
		s.busy = true
		go s.work(work)
	}
	s.mu.Unlock()
	select {
	case <-run.done:
		return run.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work makes one run after the other until nobody waits.
func (s *sharedWork) work(work func() error) {
	for run := s.begin(); run != nil; run = s.begin() {
		run.err = work()
		close(run.done)
	}
}

func (s *sharedWork) begin() *sharedRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.next
	s.next, s.busy = nil, run != nil
	return run
}
