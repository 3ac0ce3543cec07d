package raftnode

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// bubbleClock is the clock of a bubble.
func bubbleClock() func(*Config) {
	began := time.Now()
	return func(c *Config) { c.Now = func() time.Duration { return time.Since(began) } }
}

// askMember is Silence of another member that can be reached, and whose answer takes its time.
func (m *member) askMember(ctx context.Context, to, term uint64) (time.Duration, error) {
	m.c.net.mu.Lock()
	lost := m.c.net.cut[[2]uint64{m.id, to}] || m.c.net.cut[[2]uint64{to, m.id}]
	m.c.net.mu.Unlock()
	node := m.c.net.node(to)
	if node == nil || lost {
		return 0, ErrStopped
	}
	silent, err := node.Silence(ctx, term)
	time.Sleep(5 * time.Millisecond)
	return silent, err
}

func (m *member) inherited(ctx context.Context, node *Node, term uint64) (time.Duration, error) {
	return node.Inherited(ctx, term, m.askMember)
}

// A leader that was killed confirmed nothing since its last heartbeat, which its heir learns from the others.
func TestAnHeirKnowsHowLongNothingWasConfirmed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, bubbleClock())
		old := c.leader()
		time.Sleep(time.Second)
		now := old.node.cfg.Now
		killed := now()
		require.NoError(t, old.crash())
		next := c.leader()
		term := next.node.Status().Term
		led := now()
		require.Greater(t, led-killed, 900*time.Millisecond, "an election takes its time")
		at, err := next.inherited(t.Context(), next.node, term)
		require.NoError(t, err)
		require.GreaterOrEqual(t, at, killed-100*time.Millisecond-10*time.Millisecond, "heartbeats come each 100 ms")
		require.LessOrEqual(t, at, killed+20*time.Millisecond)

		_, err = next.inherited(t.Context(), next.node, term-1)
		require.ErrorIs(t, err, ErrOtherTerm)
		_, err = next.node.Silence(t.Context(), term+1)
		require.ErrorIs(t, err, ErrOtherTerm)

		// What a start forgets counts as help until then.
		for _, m := range c.members {
			if m != old && m != next {
				require.NoError(t, m.crash())
				time.Sleep(200 * time.Millisecond)
				m.start(nil)
			}
		}
		restarted := now()
		at, err = next.inherited(t.Context(), next.node, term)
		require.NoError(t, err)
		require.InDelta(t, restarted, at, float64(10*time.Millisecond))
	})
}

// What a leader confirmed with the help of a member that is gone, it knows itself: as a follower, and when it leads once more.
func TestAnHeirCountsWhatALeaderDidItself(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, bubbleClock())
		c.mustPut("a")
		first := c.leader()
		gone, second := c.members[first.id%3], c.members[(first.id+1)%3]
		now := first.node.cfg.Now
		time.Sleep(time.Second)
		c.net.set(func() {
			c.net.filter = func(m *raftpb.Message) bool { return m.GetType() != raftpb.MsgHeartbeat || m.GetTo() == gone.id }
		})
		time.Sleep(500 * time.Millisecond)
		began := now()
		_, err := first.node.ReadIndex(t.Context())
		require.NoError(t, err)
		require.NoError(t, gone.crash())
		for _, move := range []struct{ from, to *member }{{first, second}, {second, first}} {
			require.NoError(t, move.from.node.TransferLeader(t.Context(), move.to.id))
			require.Equal(t, move.to, c.leader())
			at, err := move.to.inherited(t.Context(), move.to.node, move.to.node.Status().Term)
			require.NoError(t, err)
			require.GreaterOrEqual(t, at, began)
			time.Sleep(300 * time.Millisecond)
			began = now()
		}
	})
}

// confirmed is a read index that a leader got for itself, which began at a time.
type confirmed struct {
	term  uint64
	began time.Duration
}

// Nothing that an earlier leader confirmed, however late, began after the moment which a later one has learned.
func TestNothingIsConfirmedBehindAnHeir(t *testing.T) {
	seed := testSeed(t)
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			bubble(t, func(t *testing.T) { heirsRun(t, seed, size) })
		})
	}
}

func heirsRun(t *testing.T, seed uint64, size int) {
	c := newCluster(t, seed, size, bubbleClock())
	c.net.set(func() {
		c.net.faults = faults{drop: 0.02, duplicate: 0.05, delayMin: time.Millisecond, delayMax: 200 * time.Millisecond}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var rounds []confirmed
	heirs := map[uint64]time.Duration{} // by term
	var clients sync.WaitGroup
	for _, m := range c.members {
		for range 3 {
			clients.Go(func() {
				for ; ctx.Err() == nil; time.Sleep(7 * time.Millisecond) {
					if node := c.net.node(m.id); node != nil && node.Status().State == raft.StateLeader {
						m.confirm(ctx, node, func(r confirmed) { mu.Lock(); defer mu.Unlock(); rounds = append(rounds, r) })
					}
				}
			})
		}
		clients.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
				node := c.net.node(m.id)
				if node == nil || node.Status().State != raft.StateLeader {
					continue
				}
				term := node.Status().Term
				short, stop := context.WithTimeout(ctx, time.Second)
				at, err := m.inherited(short, node, term)
				stop()
				mu.Lock()
				if known, ok := heirs[term]; err == nil && (!ok || at < known) {
					heirs[term] = at
				}
				mu.Unlock()
			}
		})
	}
	breakThings(ctx, c, rand.New(rand.NewPCG(seed, 2)))
	clients.Wait()
	early := 0
	for term, at := range heirs {
		for _, r := range rounds {
			if r.term < term && r.began > at {
				t.Errorf("term %d was told %v, and term %d confirmed what began at %v", term, at, r.term, r.began)
			}
		}
		early++
	}
	require.Greater(t, early, 5)
	require.Greater(t, len(rounds), 1000)
}

// confirm is what a heartbeat of a lease-service asks of a leader.
func (m *member) confirm(ctx context.Context, node *Node, tell func(confirmed)) {
	short, stop := context.WithTimeout(ctx, 2*time.Second)
	defer stop()
	r := confirmed{term: node.Status().Term, began: node.cfg.Now()}
	if _, err := node.ReadIndex(short); err == nil && node.Status().State == raft.StateLeader && node.Status().Term == r.term {
		tell(r)
	}
}

// Of five members three are a quorum: the node itself, and the two that were silent for longest.
func TestAQuorumVouches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := &Node{cfg: Config{Tick: 100 * time.Millisecond}}
		gather := func(own time.Duration, others int, told ...time.Duration) (time.Duration, error) {
			since := make(chan time.Duration, others)
			for _, at := range told {
				since <- at
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return n.gather(ctx, own, since, others)
		}
		for _, c := range []struct {
			own, want time.Duration
			others    int
			told      []time.Duration
		}{
			{own: 3, want: 3, others: 0},
			{own: 0, want: 7, others: 1, told: []time.Duration{7}},
			{own: 0, want: 2, others: 2, told: []time.Duration{9, 2}},
			{own: 0, want: 9, others: 2, told: []time.Duration{9}},
			{own: 0, want: 5, others: 4, told: []time.Duration{9, 2, 9, 5}},
			{own: 6, want: 6, others: 4, told: []time.Duration{9, 2, 9, 5}},
			{own: 0, want: 9, others: 4, told: []time.Duration{9, 2}},
		} {
			at, err := gather(c.own, c.others, c.told...)
			require.NoError(t, err)
			require.Equal(t, c.want, at, "%+v", c)
		}
		_, err := gather(0, 4, 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
