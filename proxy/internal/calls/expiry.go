package calls

import (
	"sync"
	"time"
)

// expiryStep is how much later than asked a time-out may come.
const expiryStep = 50 * time.Millisecond

// expiry tells calls that their time is over. Calls that begin within one step share a timer: one for each would cost more than
// all else that waiting takes.
type expiry struct {
	timeout time.Duration

	mu    sync.Mutex
	until time.Time // the calls that begin before it share over
	over  chan struct{}
}

// begin gives a channel that is closed when the time of a call that begins now is over, up to expiryStep late.
func (e *expiry) begin(now time.Time) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over == nil || !now.Before(e.until) {
		over := make(chan struct{})
		e.until, e.over = now.Add(expiryStep), over
		time.AfterFunc(e.timeout+expiryStep, func() { close(over) })
	}
	return e.over
}
