package outbox

import (
	"context"
	"sync"
	"time"
)

const (
	// InterestEvery is how often a hub that holds registrations says that somebody watches; the first it says at once.
	InterestEvery = time.Second
	// InterestFor is how long its word counts.
	InterestFor = 3 * InterestEvery
	// GatherFor is the longest that changes wait to be told together while nobody watches.
	GatherFor = 20 * time.Millisecond
)

// Interest is whether anybody watches. While nobody does, a publisher gathers changes for up to GatherFor: hubs learn them all the same, in
// fewer messages. A word that is lost makes events late by that time and nothing else. Its methods may be called from any goroutine.
type Interest struct {
	mu    sync.Mutex
	until time.Time
	began chan struct{} // closed when somebody begins to watch; nil while somebody does
}

// NewInterest begins as if somebody watched: whoever does has InterestFor to say it.
func NewInterest() *Interest { return &Interest{until: time.Now().Add(InterestFor)} }

// Heard takes in that somebody watches.
func (i *Interest) Heard() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.until = time.Now().Add(InterestFor)
	if i.began != nil {
		close(i.began)
		i.began = nil
	}
}

// Watched tells whether somebody watches.
func (i *Interest) Watched() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return time.Now().Before(i.until)
}

// none gives a channel that is closed when somebody begins to watch, or nil if somebody does.
func (i *Interest) none() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	if time.Now().Before(i.until) {
		return nil
	}
	if i.began == nil {
		i.began = make(chan struct{})
	}
	return i.began
}

// gather waits while more may come that can be told together with what the cursor has to tell.
func (i *Interest) gather(ctx context.Context, cursor *Cursor) {
	began, urgent := i.none(), cursor.urgent()
	if began == nil || urgent == nil {
		return
	}
	timer := time.NewTimer(GatherFor)
	defer timer.Stop()
	select {
	case <-began:
	case <-urgent:
	case <-timer.C:
	case <-ctx.Done():
	}
}
