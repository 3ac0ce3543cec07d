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

var (
	seedFlag     = flag.Uint64("seed", 0, "seed of the simulation; 0 takes HOLDFAST_SEED or several of the time")
	durationFlag = flag.Duration("duration", 0, "how long the simulation goes on with seeds that follow; 0 runs each seed once")
)

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
	var all world
	views, runs := uint64(0), 0
	list := seeds(t)
	for end := time.Now().Add(*durationFlag); runs == 0 || time.Now().Before(end); {
		for _, seed := range list {
			seed += uint64(runs)
			w := newWorld(t, seed, true)
			w.run(150 * time.Second)
			w.calm()
			w.run(ttlMax + 13*time.Second)
			w.explain()
			require.Empty(t, w.leases, "leases that never expired (-seed %d)", seed)
			all.expired, all.refused, all.acknowledged = all.expired+w.expired, all.refused+w.refused, all.acknowledged+w.acknowledged
			all.recorded, all.cleared, all.late = all.recorded+w.recorded, all.cleared+w.cleared, all.late+w.late
			all.stopped, all.again, views = all.stopped+w.stopped, all.again+w.again, views+w.view.GetEpoch()
		}
		runs += len(list)
	}
	t.Logf("%d runs: %d leases expired, %d decisions met a later lease, %d keepalives acknowledged, %d views; "+
		"%d rests recorded, %d cleared, %d came late; %d revokes through the owner, %d of them under a change of views",
		runs, all.expired, all.refused, all.acknowledged, views, all.recorded, all.cleared, all.late, all.stopped, all.again)
	for _, count := range []int{all.expired, all.acknowledged, all.recorded, all.cleared, all.stopped} {
		require.Positive(t, count)
	}
	if len(list) > 1 {
		require.Positive(t, all.refused)
		require.Positive(t, all.late)
		require.Positive(t, all.again)
	}
}

// TestPunctual runs the same world without faults: no lease lives on for more than two seconds after its time.
func TestPunctual(t *testing.T) {
	expired := 0
	for _, seed := range seeds(t)[:1] {
		w := newWorld(t, seed, false)
		// What is granted while the instances start gets the removal time on top.
		w.run(ttlMax + removal + 5*time.Second)
		w.punctual = true
		w.run(200 * time.Second)
		expired += w.expired
	}
	require.Positive(t, expired)
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
	switch w.rand.IntN(9) {
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
	case 8:
		// Somebody sets the clock of a machine; its process starts anew by that clock.
		p.wall += w.between(-time.Hour, time.Hour)
		p.crash(w.between(0, time.Second))
	}
	w.after(w.between(100*time.Millisecond, 2*time.Second), w.plague)
}

func (w *world) failf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("-seed %d at %v: %s", w.seed, w.now, fmt.Sprintf(format, args...))
}

// explain prints what the processes know of the leases that are left.
func (w *world) explain() {
	for id, r := range w.leases {
		w.t.Logf("lease %d of %v, granted at sequence %d, renewed at %v, now %v; owner %v", id, r.ttl, r.sequence, r.renewed, w.now, w.owner(id))
		for _, p := range w.processes {
			lease, ok := p.core.Lease(id)
			sequence, _ := p.core.Sequence()
			w.t.Logf("  %s up %v holds %v at %v of %d, epoch %d: %v %+v, deciding %d", p.name, p.up, p.core.Holds(p.clock()), sequence, w.sequence(), p.core.Epoch(), ok, lease, p.deciding)
		}
	}
}
