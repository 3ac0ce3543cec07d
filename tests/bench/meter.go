package main

import (
	"sync"
	"time"
)

// meter counts what completes while it is open.
type meter struct {
	mu        sync.Mutex
	open      bool
	latencies histogram
}

// record takes one completed operation. It may be called by all clients at the same time.
func (m *meter) record(took time.Duration) {
	m.mu.Lock()
	if m.open {
		m.latencies.add(took)
	}
	m.mu.Unlock()
}

func (m *meter) setOpen(open bool) {
	m.mu.Lock()
	m.open = open
	m.mu.Unlock()
}
