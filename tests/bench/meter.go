package main

import (
	"errors"
	"sync"
	"time"
)

// meter counts what completes while it is open.
type meter struct {
	mu        sync.Mutex
	open      bool
	latencies histogram
	last      error // of a call after which the load goes on
	gaps      gaps  // of a load that tells when its writes are acknowledged
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

// failed takes the error of a call that is done again.
func (m *meter) failed(err error) {
	m.mu.Lock()
	m.last = err
	m.mu.Unlock()
}

// lastError is the error of the latest call that failed and was done again.
func (m *meter) lastError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return errors.New("none")
	}
	return m.last
}
