package raftnode

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// kept collects messages that a filter took off the wire.
type kept struct {
	mu   sync.Mutex
	msgs []*raftpb.Message
}

func (k *kept) add(m *raftpb.Message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.msgs = append(k.msgs, proto.Clone(m).(*raftpb.Message))
}

func (k *kept) all() []*raftpb.Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*raftpb.Message(nil), k.msgs...)
}

// readAnswer is the outcome of a ReadIndex in the background.
type readAnswer struct {
	index uint64
	err   error
}

func startRead(ctx context.Context, n *Node) chan readAnswer {
	answer := make(chan readAnswer, 1)
	go func() {
		index, err := n.ReadIndex(ctx)
		answer <- readAnswer{index, err}
	}()
	return answer
}

func pending(t *testing.T, answer chan readAnswer, why string) {
	t.Helper()
	synctest.Wait()
	select {
	case a := <-answer:
		require.Fail(t, why, "answered %+v", a)
	default:
	}
}

func TestReadsOnAllMembersSeeAcknowledgedWrites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		for range 5 {
			index := c.mustPut("v")
			for _, m := range c.members {
				got, err := m.node.ReadIndex(t.Context())
				require.NoError(t, err)
				require.GreaterOrEqual(t, got, index)
			}
		}
	})
}

func TestReadersShareARound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		lead := c.leader()
		time.Sleep(time.Second)
		var rounds kept
		c.net.set(func() {
			c.net.filter = func(m *raftpb.Message) bool {
				if m.GetType() == raftpb.MsgHeartbeat && len(m.GetContext()) > 0 && m.GetTo() == lead.id%3+1 {
					rounds.add(m)
				}
				return true
			}
		})
		first := startRead(t.Context(), lead.node)
		synctest.Wait() // its round is in flight: the clock stands still
		var later []chan readAnswer
		for range 100 {
			later = append(later, startRead(t.Context(), lead.node))
		}
		require.NoError(t, (<-first).err)
		for _, a := range later {
			require.NoError(t, (<-a).err)
		}
		require.Len(t, rounds.all(), 2)
	})
}

// A leader asks twice; the followers' answers to the first question arrive after the second was asked. They prove that the
// majority followed before the second question, which is not what was asked (etcd issue 20418).
func TestLateHeartbeatAnswerConfirmsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		old := c.leader()
		time.Sleep(time.Second)

		var late kept
		c.net.set(func() {
			c.net.filter = func(m *raftpb.Message) bool {
				if m.GetType() == raftpb.MsgHeartbeatResp && m.GetTo() == old.id && len(m.GetContext()) > 0 {
					late.add(m)
					return false
				}
				return true
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		first := startRead(ctx, old.node)
		time.Sleep(10 * time.Millisecond) // less than a tick: one question
		require.Len(t, late.all(), 2)

		// The old leader is cut off, and others go on without it knowing.
		c.net.isolate(old.id)
		cancel()
		require.ErrorIs(t, (<-first).err, context.Canceled)
		second := startRead(t.Context(), old.node) // joins the next round
		// The first round has no reader left; after half an election timeout the second is asked.
		for range 6 {
			time.Sleep(100 * time.Millisecond)
		}
		require.Equal(t, raft.StateLeader, old.node.Status().State)
		pending(t, second, "nobody can have confirmed")
		require.NoError(t, old.node.do(t.Context(), func() {
			if old.node.loop.round == nil || old.node.loop.attempts < 2 {
				t.Error("the second question was not asked")
			}
		}))
		for _, m := range late.all() {
			require.NoError(t, old.node.Step(t.Context(), m))
		}
		pending(t, second, "an answer to an older question confirmed this one")

		// The others elect and write; what the old leader would have answered is stale by now.
		index := uint64(0)
		for index == 0 {
			for _, m := range c.members {
				if m != old && m.node.Status().State == raft.StateLeader {
					var err error
					index, err = m.put(t.Context(), "b")
					require.NoError(t, err)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, m := range late.all() {
			require.NoError(t, old.node.Step(t.Context(), m))
		}
		pending(t, second, "a deposed leader answered")
		c.net.set(func() { c.net.filter = nil })
		c.net.heal()
		a := <-second
		require.NoError(t, a.err)
		require.GreaterOrEqual(t, a.index, index)
	})
}

// A leader that was cut off and does not know yet that another leads answers no read.
func TestDeposedLeaderConfirmsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		old := c.leader()
		c.net.isolate(old.id)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := old.node.ReadIndex(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// The answer to another attempt counts for nothing. One that reaches the loop together with the news of another term is thrown away, and
// the question asked again.
func TestAnswerUnderAnotherLeadershipIsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		lead := c.leader()
		n := lead.node
		var stale uint64
		answer := startRead(t.Context(), n)
		synctest.Wait() // asked; the followers answer when the clock moves
		require.NoError(t, n.do(t.Context(), func() {
			l := &n.loop
			id, old := l.roundID, l.roundID
			old[16]-- // the attempt before
			n.answerReads([]raft.ReadState{{Index: 1, RequestCtx: old[:]}})
			if l.round == nil {
				t.Error("the answer to another attempt was taken")
				return
			}
			l.roundTerm--
			stale = l.attempts
			n.answerReads([]raft.ReadState{{Index: 1, RequestCtx: id[:]}})
			if l.round == nil || l.attempts != stale+1 {
				t.Error("an answer of another term was taken, or not asked for again")
			}
		}))
		a := <-answer
		require.NoError(t, a.err)
		require.Greater(t, a.index, uint64(1))
	})
}

func TestEachAttemptHasItsOwnID(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		var follower *member
		for _, m := range c.members {
			if m != c.leader() {
				follower = m
			}
		}
		var asked kept
		c.net.set(func() {
			c.net.filter = func(m *raftpb.Message) bool {
				if m.GetType() == raftpb.MsgReadIndex {
					asked.add(m)
					return false // the question is lost
				}
				return true
			}
		})
		ids := map[string]bool{}
		for range 2 { // before and after a restart
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			_, err := follower.node.ReadIndex(ctx)
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.NoError(t, follower.crash())
			follower.start(nil)
		}
		for _, m := range asked.all() {
			ids[string(m.GetEntries()[0].GetData())] = true
		}
		require.Greater(t, len(ids), 6)
		require.Len(t, ids, len(asked.all()))
	})
}

func TestRoundWithoutReadersIsDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		old := c.leader()
		c.net.isolate(old.id)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := old.node.ReadIndex(ctx)
		require.Error(t, err)
		time.Sleep(2 * time.Second)
		require.NoError(t, old.node.do(t.Context(), func() {
			if old.node.loop.round != nil {
				t.Error("a round without readers is still asked")
			}
		}))
	})
}
