package app_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

const (
	renewed     = leasev1.Outcome_OUTCOME_RENEWED
	notFound    = leasev1.Outcome_OUTCOME_NOT_FOUND
	notOwner    = leasev1.Outcome_OUTCOME_NOT_OWNER
	unavailable = leasev1.Outcome_OUTCOME_UNAVAILABLE
)

// overBoth runs a test with a bus and without one.
func overBoth(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	for name, withBus := range map[string]bool{"bus": true, "direct": false} {
		t.Run(name, func(t *testing.T) { inBubble(t, withBus, test) })
	}
}

// expires waits until a lease is gone and checks when that was.
func expires(t *testing.T, r *rig, id int64, least, most time.Time) {
	t.Helper()
	until(t, time.Until(most)+time.Second, fmt.Sprintf("lease %d expired", id), func() bool { _, ok := r.node.gone(id); return ok })
	at, _ := r.node.gone(id)
	require.False(t, at.Before(least), "%v too early", least.Sub(at))
	require.False(t, at.After(most), "%v too late", at.Sub(most))
}

// owned gives a lease id that the named instance owns among the names.
func owned(name string, names ...string) int64 {
	for id := int64(1); ; id++ {
		if names[rendezvous.Owner(id, names)] == name {
			return id
		}
	}
}

func TestLifeOfALease(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		i := r.start("a")
		time.Sleep(3 * time.Second) // what may have been before the start no longer counts
		r.node.grant(7, 5)
		time.Sleep(3 * time.Second)
		sent := time.Now()
		answer := i.keepAlive(7)
		require.Equal(t, renewed, answer.GetOutcome())
		require.EqualValues(t, 5, answer.GetTtlS())
		require.Positive(t, answer.GetRevision())
		time.Sleep(1500 * time.Millisecond)
		rest, err := i.keeper.Remaining(t.Context(), &leasev1.RemainingRequest{Leases: []int64{7, 8}})
		require.NoError(t, err)
		require.Equal(t, renewed, rest.GetRemaining()[0].GetOutcome())
		require.EqualValues(t, 3, rest.GetRemaining()[0].GetRemainingTtlS(), "cut off as etcd does")
		require.Equal(t, notFound, rest.GetRemaining()[1].GetOutcome())
		expires(t, r, 7, sent.Add(5*time.Second), sent.Add(7*time.Second))
		until(t, time.Second, "lease known to be gone", func() bool { return i.keepAlive(7).GetOutcome() == notFound })
	})
}

// Nothing is said to be gone on the word of the table alone, and a lease that the feed has not told of yet is found.
func TestUnknownLeasesAreProved(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		_, before, _ := r.node.count()
		answers := i.keepAlives(1, 2, 3, 2)
		for _, answer := range answers {
			require.Equal(t, notFound, answer.GetOutcome())
		}
		_, after, _ := r.node.count()
		require.Positive(t, after-before)
		require.LessOrEqual(t, after-before, 2, "in one read")

		r.node.set(func(f *faults) { f.deaf = true })
		r.node.grant(9, 60)
		require.Equal(t, renewed, i.keepAlive(9).GetOutcome(), "the bus told nothing of it")

		r.node.set(func(f *faults) { f.majority = true })
		require.Equal(t, unavailable, i.keepAlive(4).GetOutcome(), "no read, no proof")
	})
}

// A new start is a new incarnation and gives every lease its full TTL; the old start's right is waited out.
func TestRestart(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		old := r.start("a")
		r.node.grant(7, 5)
		time.Sleep(4 * time.Second)
		old.cut.Store(true) // it dies without a word
		epoch := r.node.epoch()
		began := time.Now()
		fresh := r.start("a")
		require.Equal(t, epoch+1, r.node.epoch())
		require.Equal(t, renewed, fresh.keepAlive(7).GetOutcome())
		expires(t, r, 7, began.Add(removal+5*time.Second), began.Add(removal+5*time.Second+2*time.Second))
		require.False(t, old.instance.Serving())
	})
}

// What waits at a leader that stands still is asked of its successor as soon as that is known: else an instance that lives would be removed,
// and leases would expire late.
func TestALeaderThatStandsStill(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.elect(2)
		time.Sleep(3 * time.Second)
		r.node.grant(7, 5)
		time.Sleep(4*time.Second + 700*time.Millisecond)
		i.second.stopped.Store(true)
		i.until(time.Second, "a heartbeat and an expiry wait", func() bool { return i.second.waiting.Load() == 2 })
		_, gone := r.node.gone(7)
		require.False(t, gone)
		r.node.elect(1)
		elected := time.Now()
		i.until(200*time.Millisecond, "a heartbeat at the successor", func() bool { return r.node.lastHeard().After(elected) })
		i.until(200*time.Millisecond, "the lease expired", func() bool { _, gone := r.node.gone(7); return gone })
	})
}

func TestTakeoverAfterSilence(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a"), r.start("b")
		until(t, 3*time.Second, "both serving", func() bool { return a.instance.Serving() && b.instance.Serving() })
		id := owned("a", "a", "b")
		r.node.grant(id, 5)
		time.Sleep(3 * time.Second)
		var answer *leasev1.KeepAliveAnswer
		until(t, time.Second, "b knows the view", func() bool { answer = b.keepAlive(id); return answer.GetOutcome() == notOwner })
		require.Len(t, answer.GetView().GetInstances(), 2)
		require.Equal(t, renewed, a.keepAlive(id).GetOutcome())
		a.cut.Store(true)
		cutAt := time.Now()
		// As long as a may acknowledge it does, then it must not: b will have the lease.
		var last time.Time
		until(t, 5*time.Second, "a without right", func() bool {
			sent := time.Now()
			if a.keepAlive(id).GetOutcome() == renewed {
				last = sent
				return false
			}
			return true
		})
		require.Less(t, last.Sub(cutAt), removal)
		expires(t, r, id, last.Add(5*time.Second), cutAt.Add(5*time.Second+removal+5*time.Second))
	})
}

func TestLeaveHandsOverAtOnce(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		a, b := r.start("a"), r.start("b")
		time.Sleep(3 * time.Second)
		id := owned("a", "a", "b")
		r.node.grant(id, 5)
		until(t, time.Second, "lease known", func() bool { return a.keepAlive(id).GetOutcome() == renewed })
		epoch, left := r.node.epoch(), time.Now()
		a.stop()
		require.Equal(t, epoch+1, r.node.epoch())
		until(t, 500*time.Millisecond, "b has it", func() bool {
			verdict, err := b.keeper.Remaining(t.Context(), &leasev1.RemainingRequest{Leases: []int64{id}})
			require.NoError(t, err)
			return verdict.GetRemaining()[0].GetOutcome() == renewed
		})
		expires(t, r, id, left.Add(5*time.Second), left.Add(5*time.Second+2*time.Second))
	})
}

// What the bus loses is read from the table, and without the bus a node tells it directly.
func TestGapsAreRepaired(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.pageMax = 3
		r.node.set(func(f *faults) { f.deaf = true })
		for id := int64(1); id <= 10; id++ {
			r.node.grant(id, 60)
		}
		r.node.revoke(4)
		r.node.set(func(f *faults) { f.deaf = false })
		until(t, time.Second, "table repaired", func() bool {
			rest, err := i.keeper.Remaining(t.Context(), &leasev1.RemainingRequest{Leases: []int64{10}})
			require.NoError(t, err)
			return rest.GetRemaining()[0].GetOutcome() == renewed
		})
		_, before, _ := r.node.count()
		for id := int64(1); id <= 10; id++ {
			if id != 4 {
				require.Equal(t, renewed, i.keepAlive(id).GetOutcome())
			}
		}
		_, after, _ := r.node.count()
		require.Equal(t, before, after, "no proof was needed")

		r.bus.SetDown(true)
		time.Sleep(2 * time.Second)
		r.node.grant(20, 60)
		until(t, 100*time.Millisecond, "told directly", func() bool { return i.keepAlive(20).GetOutcome() == renewed })
		r.node.set(func(f *faults) { f.silent = true })
		r.node.grant(21, 60)
		r.node.set(func(f *faults) { f.silent = false })
		until(t, time.Second, "read after the stream lost it", func() bool { return i.keepAlive(21).GetOutcome() == renewed })
		require.True(t, i.instance.Serving())
	})
}

// Without a majority nothing expires and nothing is acknowledged for longer than the right lasts. Afterwards everything that
// ran out goes, thousands in a moment.
func TestOutage(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		const count = 5000
		for id := int64(1); id <= count; id++ {
			r.node.grant(id, 5)
		}
		until(t, time.Second, "leases known", func() bool { return i.keepAlive(count).GetOutcome() == renewed })
		time.Sleep(time.Second)
		r.node.set(func(f *faults) { f.majority = true })
		time.Sleep(removal)
		require.Equal(t, unavailable, i.keepAlive(1).GetOutcome())
		require.False(t, i.instance.Serving())
		time.Sleep(30 * time.Second)
		leases, _, _ := r.node.count()
		require.Equal(t, count, leases)
		r.node.set(func(f *faults) { f.majority = false })
		until(t, 3*time.Second, "everything expired", func() bool { leases, _, _ := r.node.count(); return leases == 0 })
		_, _, calls := r.node.count()
		require.LessOrEqual(t, calls, count/100, "many leases go in one call")
	})
}

// An unknown outcome of an expiry is settled, and while it is unknown nothing is acknowledged.
func TestUnknownOutcome(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.grant(7, 3)
		r.node.set(func(f *faults) { f.outcomes = true })
		time.Sleep(2900 * time.Millisecond)
		r.node.set(func(f *faults) { f.deaf = true })
		until(t, 5*time.Second, "expired", func() bool { _, ok := r.node.gone(7); return ok })
		require.NotEqual(t, renewed, i.keepAlive(7).GetOutcome())
		r.node.set(func(f *faults) { f.outcomes, f.deaf = false, false })
		until(t, 2*time.Second, "settled", func() bool { return i.keepAlive(7).GetOutcome() == notFound })
	})
}

// What is told of a client's revoke.
const (
	done   = leasev1.Outcome_OUTCOME_DONE
	stop   = leasev1.Ask_ASK_STOP
	resume = leasev1.Ask_ASK_RESUME
)

// A client's revoke stops the acknowledgements; one that comes to nothing lets them go on: soon if its proxy says so, else later.
func TestStop(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.grant(7, 60)
		until(t, time.Second, "lease known", func() bool { return i.keepAlive(7).GetOutcome() == renewed })
		require.Equal(t, done, i.tell(stop, 7, 1))
		require.Equal(t, unavailable, i.keepAlive(7).GetOutcome())
		r.node.revoke(7)
		until(t, time.Second, "gone", func() bool { return i.keepAlive(7).GetOutcome() == notFound })

		r.node.grant(8, 60)
		require.Equal(t, done, i.tell(stop, 8, 2))
		require.Equal(t, unavailable, i.keepAlive(8).GetOutcome())
		until(t, 12*time.Second, "goes on", func() bool { return i.keepAlive(8).GetOutcome() == renewed })

		require.Equal(t, done, i.tell(stop, 8, 3))
		require.Equal(t, done, i.tell(resume, 8, 3))
		sent := time.Now()
		require.Equal(t, renewed, i.keepAlive(8).GetOutcome())
		require.Less(t, time.Since(sent), 200*time.Millisecond, "the proxy said that the revoke came to nothing")

		r.node.set(func(f *faults) { f.majority = true })
		time.Sleep(removal)
		require.Equal(t, unavailable, i.tell(stop, 8, 4), "who has no right does not know who has")
	})
}

// Each of two revokes of one id holds what it may meet: the first to happen ends one stop, not both, so that no keepalive of a lease
// that is granted in between is acknowledged after the second.
func TestStopsAreCounted(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.grant(7, 60)
		require.Equal(t, done, i.tell(stop, 7, 1))
		require.Equal(t, done, i.tell(stop, 7, 2))
		require.Equal(t, done, i.tell(stop, 7, 2), "told again, as after an answer that was lost")
		r.node.revoke(7)
		r.node.grant(7, 60)
		require.Equal(t, unavailable, i.keepAlive(7).GetOutcome(), "the second is still on its way")
		r.node.revoke(7)
		r.node.grant(7, 60)
		until(t, time.Second, "nothing is on its way", func() bool { return i.keepAlive(7).GetOutcome() == renewed })

		// The second finds nothing, after the first has ended a stop in its place.
		require.Equal(t, done, i.tell(stop, 7, 3))
		require.Equal(t, done, i.tell(stop, 7, 4))
		r.node.revoke(7)
		require.Equal(t, done, i.tell(resume, 7, 3))
		r.node.grant(7, 60)
		until(t, time.Second, "nothing is on its way", func() bool { return i.keepAlive(7).GetOutcome() == renewed })
	})
}

// A revoke that a gap in the feed hides has ended its stop all the same: the lease that is granted next is renewed at once.
func TestGapEndsStops(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.grant(7, 60)
		r.node.grant(8, 60)
		require.Equal(t, done, i.tell(stop, 7, 1))
		require.Equal(t, done, i.tell(stop, 8, 2))
		r.node.set(func(f *faults) { f.deaf = true })
		r.node.revoke(7)
		r.node.revoke(8)
		r.node.grant(8, 60)
		r.node.set(func(f *faults) { f.deaf = false })
		until(t, time.Second, "renewed", func() bool { return i.keepAlive(8).GetOutcome() == renewed })
		r.node.grant(7, 60)
		until(t, time.Second, "renewed", func() bool { return i.keepAlive(7).GetOutcome() == renewed })
	})
}

// A revoke of a lease that does not exist comes to nothing, and so it stops nothing: not the lease that is granted next under
// the same id.
func TestStopOfNoLease(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		i := r.start("a")
		refused := func(id int64) {
			require.Equal(t, notFound, i.tell(stop, id, uint64(id)))
			r.node.grant(id, 60)
			until(t, time.Second, "renewed", func() bool { return i.keepAlive(id).GetOutcome() == renewed })
		}
		refused(7)
		r.node.revoke(7)
		until(t, time.Second, "gone", func() bool { return i.keepAlive(7).GetOutcome() == notFound })
		refused(7)

		// One that the feed has not told of yet exists, and is stopped.
		r.node.set(func(f *faults) { f.deaf, f.silent = true, true })
		r.node.grant(8, 60)
		require.Equal(t, done, i.tell(stop, 8, 8))
		r.node.set(func(f *faults) { f.deaf, f.silent = false, false })
		until(t, time.Second, "lease known", func() bool {
			rest, err := i.keeper.Remaining(t.Context(), &leasev1.RemainingRequest{Leases: []int64{8}})
			return err == nil && rest.GetRemaining()[0].GetOutcome() == renewed
		})
		require.Equal(t, unavailable, i.keepAlive(8).GetOutcome())

		// Without the proof nothing is said: it may exist.
		r.node.set(func(f *faults) { f.majority = true })
		require.Equal(t, unavailable, i.tell(stop, 9, 9))
	})
}

// The rest of a long lease that nobody renews is recorded every five minutes: whoever owns it next counts that, and not the whole TTL
// again. A keepalive is acknowledged after the record is cleared, and then the full TTL counts.
func TestRestsAreRecorded(t *testing.T) {
	overBoth(t, func(t *testing.T, r *rig) {
		const ttl, renews = 1500, 8
		a := r.start("a")
		r.node.grant(7, ttl)
		r.node.grant(renews, ttl)
		granted := time.Now()
		rest := func(id int64) int64 {
			r.node.mu.Lock()
			defer r.node.mu.Unlock()
			return r.node.leases[id].GetRemainingTtlS()
		}
		for range 7 {
			time.Sleep(2 * time.Minute)
			require.Equal(t, renewed, a.keepAlive(renews).GetOutcome())
			require.Zero(t, rest(renews), "what is renewed costs the consensus tier nothing")
		}
		require.InDelta(t, ttl-10*60, rest(7), 5, "after ten minutes, the second record")
		require.GreaterOrEqual(t, rest(7), int64(ttl)-600)

		a.stop()
		b := r.start("b")
		expires(t, r, 7, granted.Add(ttl*time.Second), granted.Add((ttl+300+10)*time.Second))

		last := time.Now()
		until(t, 6*time.Minute, "recorded", func() bool { return rest(renews) > 0 })
		require.Equal(t, renewed, b.keepAlive(renews).GetOutcome())
		require.Zero(t, rest(renews))
		renewedAt := time.Now()
		b.stop()
		r.start("c")
		expires(t, r, renews, renewedAt.Add(ttl*time.Second), last.Add((ttl+300+700)*time.Second))
	})
}

// A record that comes late, after its call was given up, shortens nothing: not after a keepalive was acknowledged, nor for a lease that
// was granted anew.
func TestLateRecord(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		const ttl = 900
		a := r.start("a")
		r.node.grant(7, ttl)
		r.node.set(func(f *faults) { f.records = true })
		until(t, 6*time.Minute, "a record is held up", func() bool { return len(r.node.held()) > 0 })
		require.Equal(t, renewed, a.keepAlive(7).GetOutcome())
		at := time.Now()
		r.node.late()
		a.stop()
		r.start("b")
		expires(t, r, 7, at.Add(ttl*time.Second), at.Add((ttl+300+10)*time.Second))
	})
}

// A checkpoint is cleared before a keepalive is acknowledged.
func TestCheckpointIsClearedFirst(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.start("a")
		r.node.grant(7, 60)
		r.node.checkpoint(7, 10)
		require.Equal(t, renewed, i.keepAlive(7).GetOutcome())
		r.node.mu.Lock()
		defer r.node.mu.Unlock()
		require.Zero(t, r.node.leases[7].GetRemainingTtlS())
	})
}

func TestEventsAreAnnounced(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		var mu sync.Mutex
		var got []string
		listener := r.bus.Connect()
		defer func() { require.NoError(t, listener.Close()) }()
		_, err := listener.Subscribe(fmt.Sprintf("holdfast.%016x.lease.events", clusterID), func(m bus.Message) {
			event := &leasev1.Event{}
			if err := event.UnmarshalVT(m.Payload); err != nil {
				panic(err)
			}
			mu.Lock()
			defer mu.Unlock()
			got = append(got, fmt.Sprintf("%s %s %d %x", event.GetInstance(), event.GetKind(), event.GetLease(), event.GetClusterId()))
		}, func(bus.Cause) {})
		require.NoError(t, err)
		r.start("a")
		r.node.grant(7, 3)
		r.node.grant(8, 60)
		r.node.revoke(8)
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		require.Equal(t, []string{
			"a KIND_GRANTED 7 abc", "a KIND_GRANTED 8 abc", "a KIND_REVOKED 8 abc", "a KIND_EXPIRING 7 abc", "a KIND_EXPIRED 7 abc",
		}, got)
	})
}

func TestHealth(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		i := r.launch("a", true)
		get := func() int {
			recorder := httptest.NewRecorder()
			i.instance.HTTP(nil).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health", http.NoBody))
			return recorder.Code
		}
		time.Sleep(time.Second)
		require.Equal(t, http.StatusServiceUnavailable, get())
		i.cut.Store(false)
		until(t, 3*time.Second, "healthy", func() bool { return get() == http.StatusOK })
	})
}
