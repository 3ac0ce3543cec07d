package transport

import "sync"

// Evict ends the streams of a member that was removed, which is how it hears of it: one that has nothing to send would never ask.
func (s *Server) Evict(id uint64) { s.evictions.evict(id) }

// evictions are the channels that end the streams of each member.
type evictions struct {
	mu      sync.Mutex
	members map[uint64]chan struct{}
}

// of gives the channel that is closed when the member is evicted.
func (e *evictions) of(id uint64) <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.members == nil {
		e.members = map[uint64]chan struct{}{}
	}
	if e.members[id] == nil {
		e.members[id] = make(chan struct{})
	}
	return e.members[id]
}

func (e *evictions) evict(id uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.members[id] != nil {
		close(e.members[id])
		delete(e.members, id)
	}
}
