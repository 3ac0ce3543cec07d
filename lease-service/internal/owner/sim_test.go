package owner_test

import (
	"container/heap"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the simulation; 0 takes HOLDFAST_SEED or several of the time")

func seeds(t *testing.T) []uint64 {
	t.Helper()
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	if text := os.Getenv("HOLDFAST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		return []uint64{seed}
	}
	list := make([]uint64, 24)
	for i := range list {
		list[i] = uint64(time.Now().UnixNano()) + uint64(i)
	}
	return list
}

// TestSimulation runs several instances with clocks of their own against one consensus tier, with one global clock that only the
// checks may read: whatever is lost, delayed, paused, killed and cut off, no lease expires before its TTL has passed since the
// sending of the last keepalive that was acknowledged, and when all is well again every lease without a client expires.
func TestSimulation(t *testing.T) {
	expired, refused, acknowledged, views := 0, 0, 0, uint64(0)
	list := seeds(t)
	for _, seed := range list {
		w := newWorld(t, seed)
		w.run(150 * time.Second)
		w.calm()
		w.run(ttlMax + 12*time.Second)
		require.Empty(t, w.leases, "leases that never expired (-seed %d)", seed)
		expired, refused = expired+w.expired, refused+w.refused
		acknowledged, views = acknowledged+w.acknowledged, views+w.view.GetEpoch()
	}
	t.Logf("%d leases expired, %d decisions met a later lease, %d keepalives acknowledged, %d views", expired, refused, acknowledged, views)
	require.Positive(t, expired)
	if len(list) > 1 {
		require.Positive(t, refused)
	}
	require.Positive(t, acknowledged)
}

// event is something that happens at a time.
type event struct {
	at    time.Duration
	order uint64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(a, b int) bool {
	return e[a].at < e[b].at || e[a].at == e[b].at && e[a].order < e[b].order
}
func (e events) Swap(a, b int) { e[a], e[b] = e[b], e[a] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// scheduler is the global clock.
type scheduler struct {
	now   time.Duration
	queue events
	order uint64
	rand  *rand.Rand
}

func (s *scheduler) after(d time.Duration, do func()) {
	s.order++
	heap.Push(&s.queue, event{s.now + d, s.order, do})
}

func (s *scheduler) run(d time.Duration) {
	end := s.now + d
	for len(s.queue) > 0 && s.queue[0].at <= end {
		next := heap.Pop(&s.queue).(event)
		s.now = next.at
		next.do()
	}
	s.now = end
}

// between is a random time.
func (s *scheduler) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rand.Int64N(int64(b-a)+1))
}

func (s *scheduler) chance(percent int) bool { return s.rand.IntN(100) < percent }

// delay is how long a message takes; lost ones arrive never.
func (w *world) delay() (d time.Duration, arrives bool) {
	if w.faults {
		switch roll := w.rand.IntN(100); {
		case roll < 4:
			return 0, false
		case roll < 8:
			return w.between(100*time.Millisecond, 2500*time.Millisecond), true
		}
	}
	return w.between(time.Millisecond, 30*time.Millisecond), true
}

// calm ends all faults and lets all clients die.
func (w *world) calm() {
	w.faults = false
	w.clients = false
	w.majority = true
	for _, p := range w.processes {
		p.cut, p.deaf = false, false
	}
}

// plague makes one fault after the other.
func (w *world) plague() {
	if !w.faults {
		return
	}
	p := w.processes[w.rand.IntN(len(w.processes))]
	switch w.rand.IntN(8) {
	case 0:
		p.pause(w.between(200*time.Millisecond, 6*time.Second))
	case 1:
		p.pause(w.between(10*time.Millisecond, 500*time.Millisecond))
	case 2:
		p.crash(w.between(0, 5*time.Second))
	case 3:
		p.leave(w.between(0, 3*time.Second))
	case 4:
		p.cut = true
		w.after(w.between(100*time.Millisecond, 6*time.Second), func() { p.cut = false })
	case 5:
		// A new leader has heard of nobody.
		clear(w.heard)
		w.led = w.now
	case 6:
		w.majority = false
		w.after(w.between(100*time.Millisecond, 4*time.Second), func() { w.majority = true })
	case 7:
		p.deaf = true
		w.after(w.between(time.Second, 9*time.Second), func() { p.deaf = false })
	}
	w.after(w.between(100*time.Millisecond, 2*time.Second), w.plague)
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("-seed %d at %v: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}
