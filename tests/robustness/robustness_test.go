package robustness

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRobustness lets faults of chance happen to each system.
func TestRobustness(t *testing.T) {
	for _, kind := range strings.Split(*systemFlag, ",") {
		t.Run(kind, func(t *testing.T) {
			s := seed(t)
			r := startRun(t, startSystem(t, kind), s)
			stopWriters, stopReaders := r.begin(t)
			defer stopReaders()
			defer stopWriters()
			r.happenAll(t, rand.New(rand.NewPCG(s, 0)), *durationFlag)
			r.finish(t, stopWriters, stopReaders)
		})
	}
}

// begin starts all clients.
func (r *run) begin(t *testing.T) (stopWriters, stopReaders func()) {
	t.Helper()
	reading, cancelReaders := context.WithCancel(t.Context())
	writing, cancelWriters := context.WithCancel(reading)
	r.watchers(reading, t)
	r.keep(reading, t)
	r.clients(writing, t)
	stopWriters = func() {
		cancelWriters()
		r.writers.Wait()
	}
	return stopWriters, func() {
		cancelReaders()
		r.readers.Wait()
	}
}
