package robustness

import (
	"context"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRobustness lets faults of chance happen to each system.
func TestRobustness(t *testing.T) {
	for kind := range strings.SplitSeq(*systemFlag, ",") {
		t.Run(kind, func(t *testing.T) {
			withClients(t, kind, func(r *run, rng *rand.Rand) { r.happenAll(t, rng, *durationFlag) })
		})
	}
}

// TestEachProcess kills each process of the split system once, in an order of chance, and sees that everything goes on
// without it before it comes back.
func TestEachProcess(t *testing.T) {
	withClients(t, "split", func(r *run, rng *rand.Rand) {
		names := r.Processes()
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			r.during(func() { r.away(t, rng, true, name) })
			r.progress(t, "with "+name+" again")
		}
	})
}

// withClients runs a system with its clients while something happens to it, and checks what they were told.
func withClients(t *testing.T, kind string, happen func(r *run, rng *rand.Rand)) {
	t.Helper()
	s := seed(t)
	r := startRun(t, startSystem(t, kind), s)
	defer func() {
		if t.Failed() {
			t.Logf("run again with -seed=%d -system=%s", s, kind)
			r.save(t)
		}
	}()
	stopWriters, stopReaders := r.begin(t)
	defer stopReaders()
	defer stopWriters()
	happen(r, rand.New(rand.NewPCG(s, 0)))
	r.finish(t, stopWriters, stopReaders)
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
