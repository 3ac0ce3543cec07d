package calls

import (
	"sync"
	"sync/atomic"
	"time"
)

// expiryStep is how much later than asked a time-out may come.
const expiryStep = 50 * time.Millisecond

// expiry tells calls that their time is over. Calls that begin within one step share a timer: one for each would cost more than
// all else that waiting takes.
type expiry struct {
	timeout time.Duration

	mu      sync.Mutex // of who replaces current
	current atomic.Pointer[step]
}

// step is the calls that begin before a time; they share over.
type step struct {
	until time.Time
	over  chan struct{}
}

// begin gives a channel that is closed when the time of a call that begins now is over, up to expiryStep late.
func (e *expiry) begin(now time.Time) <-chan struct{} {
	if s := e.current.Load(); s.takes(now) {
		return s.over
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.current.Load()
	if !s.takes(now) {
		s = &step{until: now.Add(expiryStep), over: make(chan struct{})}
		time.AfterFunc(e.timeout+expiryStep, func() { close(s.over) })
		e.current.Store(s)
	}
	return s.over
}

func (s *step) takes(now time.Time) bool { return s != nil && now.Before(s.until) }
