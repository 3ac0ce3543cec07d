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
	// inCommits are the operations during which a node's database was written.
	inCommits  histogram
	lastCommit time.Time
	// atEndpoint are the operations of each endpoint, in their order, where the load tells.
	atEndpoint []histogram
	last       error // of a call after which the load goes on
	gaps       gaps  // of a load that tells when its writes are acknowledged
}

// record takes one operation that has just completed. It may be called by all clients at the same time.
func (m *meter) record(took time.Duration) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(now, took)
}

// recordAt is record with the number of the endpoint that was asked.
func (m *meter) recordAt(endpoint int, took time.Duration) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(now, took)
	if !m.open {
		return
	}
	for len(m.atEndpoint) <= endpoint {
		m.atEndpoint = append(m.atEndpoint, histogram{})
	}
	m.atEndpoint[endpoint].add(took)
}

func (m *meter) add(now time.Time, took time.Duration) {
	m.done++
	if !m.open {
		return
	}
	m.latencies.add(took)
	if !m.lastCommit.Before(now.Add(-took)) {
		m.inCommits.add(took)
	}
}

// committed takes the moment at which a node's database was seen to have been written.
func (m *meter) committed(at time.Time) {
	m.mu.Lock()
	m.lastCommit = at
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
	m.latencies, m.inCommits, m.atEndpoint = histogram{}, histogram{}, nil
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
