package history

import (
	"fmt"
	"slices"
	"sync"
	"time"
)

// Event is one change as a watch delivers it.
type Event struct {
	KV      // of a delete: Key and Mod alone
	Deleted bool
	Prev    *KV // nil: there was nothing, or it was not asked for
}

// String is the event in short.
func (e Event) String() string {
	if e.Deleted {
		return fmt.Sprintf("%d: %s deleted", e.Mod, e.Key)
	}
	return fmt.Sprintf("%d: %v", e.Mod, e.KV)
}

// Delivery is one response of a watch.
type Delivery struct {
	At       time.Duration
	Revision int64 // of the header
	Events   []Event
	Bookmark bool // a progress notice
}

// Watch is one watch with all that came of it. It may be filled and read at the same time.
type Watch struct {
	Name string
	// Key and End are the range, as of an Action. Start is the first revision asked for, or for a watch that asked for
	// none the one after that of its created response.
	Key, End  string
	Start     int64
	WantsPrev bool
	// NoPut and NoDelete are filters: such events are not wanted.
	NoPut, NoDelete bool

	mu         sync.Mutex
	deliveries []Delivery
	ended      error
	compacted  int64 // the compact revision that the end named
	changed    chan struct{}
}

// Add appends a response.
func (w *Watch) Add(d Delivery) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deliveries = append(w.deliveries, d)
	w.tell()
}

// Finish says that nothing more comes, and why; compacted is the revision that the server named, or 0.
func (w *Watch) Finish(err error, compacted int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended, w.compacted = err, compacted
	w.tell()
}

func (w *Watch) tell() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// Ended is why the watch ended, nil while it goes on.
func (w *Watch) Ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// Deliveries is what came so far.
func (w *Watch) Deliveries() []Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clip(w.deliveries)
}

// Seen is the revision up to which the watch has delivered all, by its events and bookmarks, and what is closed when there
// is more.
func (w *Watch) Seen() (int64, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return seen(w.Start, w.deliveries), w.changed
}

// Next is where a new watch has to start to go on where this one ended.
func (w *Watch) Next() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(seen(w.Start, w.deliveries)+1, w.compacted)
}

func seen(start int64, deliveries []Delivery) int64 {
	if len(deliveries) == 0 {
		return start - 1
	}
	d := deliveries[len(deliveries)-1]
	if d.Bookmark {
		return max(start-1, d.Revision)
	}
	return d.Events[len(d.Events)-1].Mod
}

// wants tells whether the watch is to deliver an event.
func (w *Watch) wants(e Event) bool {
	if e.Deleted && w.NoDelete || !e.Deleted && w.NoPut {
		return false
	}
	return w.covers(e.Key)
}

func (w *Watch) covers(key string) bool {
	switch w.End {
	case "":
		return key == w.Key
	case "\x00":
		return key >= w.Key
	default:
		return key >= w.Key && key < w.End
	}
}
