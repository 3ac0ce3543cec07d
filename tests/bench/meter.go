package main

import (
	"context"
	"errors"
	"sync"
	"time"
)

// meter counts what completes while it is open.
type meter struct {
	mu        sync.Mutex
	open      bool
	done      uint64        // completed, also while it is not open
	started   chan struct{} // closed when the load has made what it needs; nil: it needs nothing
	latencies histogram
	last      error // of a call after which the load goes on
	gaps      gaps  // of a load that tells when its writes are acknowledged
}

// record takes one completed operation. It may be called by all clients at the same time.
func (m *meter) record(took time.Duration) {
	m.mu.Lock()
	m.done++
	if m.open {
		m.latencies.add(took)
	}
	m.mu.Unlock()
}

// nextEvery is how often next looks.
const nextEvery = time.Millisecond

// next waits until an operation completes.
func (m *meter) next(ctx context.Context) error {
	count := func() uint64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.done
	}
	for before := count(); count() == before; {
		if err := pause(ctx, nextEvery); err != nil {
			return err
		}
	}
	return nil
}

// forget gives a quantile of what was counted, and begins anew.
func (m *meter) forget(q float64) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.latencies.quantile(q)
	m.latencies = histogram{}
	return was
}

// start says that the load has made what it needs.
func (m *meter) start() { close(m.started) }

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
