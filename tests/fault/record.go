package fault

import (
	"fmt"
	"sync"
)

// change is one key's new value, or its end, at a revision.
type change struct {
	Revision int64
	Key      string
	Value    string
	Deleted  bool
}

// String is the change in short.
func (c change) String() string {
	if c.Deleted {
		return fmt.Sprintf("%d: %s deleted", c.Revision, c.Key)
	}
	return fmt.Sprintf("%d: %s=%s", c.Revision, c.Key, c.Value)
}

// acknowledgements are the writes that clients were told had happened, and how many they were told nothing of.
type acknowledgements struct {
	mu      sync.Mutex
	writes  []change
	unknown int
}

func (a *acknowledgements) add(c change) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes = append(a.writes, c)
}

func (a *acknowledgements) lost() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unknown++
}

func (a *acknowledgements) count() (acknowledged, unknown int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.writes), a.unknown
}

// history is what one watcher of everything has seen, in the order in which it came.
type history struct {
	name string

	mu      sync.Mutex
	seen    []change
	changed chan struct{} // closed and made anew at each change
	ended   error
}

func newHistory(name string) *history { return &history{name: name, changed: make(chan struct{})} }

func (h *history) add(changes ...change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, changes...)
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *history) end(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = err
	close(h.changed)
	h.changed = make(chan struct{})
}

// last is the newest revision seen, what to wait on for more, and how the watch ended.
func (h *history) last() (revision int64, changed <-chan struct{}, ended error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.seen) > 0 {
		revision = h.seen[len(h.seen)-1].Revision
	}
	return revision, h.changed, h.ended
}

func (h *history) changes() []change {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]change(nil), h.seen...)
}
