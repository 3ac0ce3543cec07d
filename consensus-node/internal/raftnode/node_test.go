package raftnode

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

func TestEntriesReachAllInOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		for i := range 50 {
			c.mustPut(fmt.Sprint("v", i))
		}
		rows := c.agree().Rows
		require.Len(t, rows, 50)
		for i, r := range rows {
			require.Equal(t, fmt.Sprint("v", i), r.Value)
		}
	})
}

func TestSingleMemberLeadsAtOnceAndReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		start := time.Now()
		c.mustPut("a")
		require.Less(t, time.Since(start), 100*time.Millisecond)
		index := c.mustPut("b")

		// A restart forgets the commit index; a read must not be answered from what is left of it.
		m := c.members[0]
		require.NoError(t, m.crash())
		require.Less(t, m.state.durable.Index, index)
		m.start(nil)
		got, err := m.node.ReadIndex(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, got, index)
	})
}

// What a process finds in its log is confirmed too, also if it never appends: else a flip in the last record would pass for a torn write.
func TestLogIsConfirmedAfterAQuietStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		lead := c.leader()
		m := c.members[0]
		if m == lead {
			m = c.members[1]
		}
		time.Sleep(time.Second) // it knows all that is committed, and has written it down
		require.NoError(t, m.crash())
		_, before, _ := m.log.counts()
		m.start(nil) // it hears heartbeats alone
		time.Sleep(time.Second)
		synctest.Wait()
		_, confirms, _ := m.log.counts()
		require.Equal(t, before+1, confirms)
	})
}

func TestFollowerRefusesAndNamesLeader(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		lead := c.leader()
		c.mustPut("a")
		for _, m := range c.members {
			if m == lead {
				continue
			}
			_, err := m.node.Propose(t.Context(), []byte("x"))
			var no *NotLeaderError
			require.ErrorAs(t, err, &no)
			require.Equal(t, lead.id, no.Leader)
		}
		for _, r := range c.agree().Rows {
			require.NotEqual(t, "x", r.Value)
		}
	})
}

func TestFullLogDropsProposals(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, func(cfg *Config) { cfg.UncommittedBytesMax = 10_000 })
		lead := c.leader()
		c.mustPut("a")
		c.net.isolate(lead.id)
		taken := 0
		for {
			_, err := lead.node.Propose(t.Context(), []byte(strings.Repeat("x", 1000)))
			if err != nil {
				require.ErrorIs(t, err, ErrTooManyUncommitted)
				require.ErrorIs(t, err, ErrDropped)
				break
			}
			taken++
			require.Less(t, taken, 20)
		}
		require.Equal(t, 10, taken)
	})
}

func TestLargeProposalDoesNotRefuseItsNeighbours(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, func(cfg *Config) { cfg.UncommittedBytesMax = 10_000 })
		lead := c.leader()
		c.mustPut("a")
		c.net.isolate(lead.id)
		_, err := lead.node.Propose(t.Context(), []byte("first")) // an empty end of the log takes any size
		require.NoError(t, err)
		n := lead.node
		var batch []*proposal
		for _, size := range []int{1000, 20_000, 1000} {
			batch = append(batch, &proposal{
				entry:  &raftpb.Entry{Data: make([]byte, size)},
				answer: make(chan proposalAnswer, 1),
			})
		}
		require.NoError(t, n.do(t.Context(), func() { n.loop.batch = append(n.loop.batch, batch...) }))
		first, second, third := <-batch[0].answer, <-batch[1].answer, <-batch[2].answer
		require.NoError(t, first.err)
		require.ErrorIs(t, second.err, ErrTooManyUncommitted)
		require.NoError(t, third.err)
		require.Equal(t, first.pos.Index+1, third.pos.Index)
	})
}

func TestPositionIsWhereTheEntryIs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		lead := c.leader()
		done := make(chan error, 64)
		for i := range 64 {
			go func() { _, err := lead.put(t.Context(), fmt.Sprint("v", i)); done <- err }() // put compares
		}
		for range 64 {
			require.NoError(t, <-done)
		}
	})
}

func TestWaitingAppendsShareOneSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		m := c.members[0]
		gate := make(chan struct{})
		m.log.hold(gate)
		before, _, _ := m.log.counts()
		for i := range 40 {
			_, err := m.node.Propose(t.Context(), []byte(fmt.Sprint("v", i)))
			require.NoError(t, err)
			synctest.Wait()
		}
		m.log.hold(nil)
		close(gate)
		c.mustPut("z")
		after, _, _ := m.log.counts()
		require.LessOrEqual(t, after-before, 3)
		require.Len(t, c.agree().Rows, 42)
	})
}

func TestQuietLogIsConfirmedOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		time.Sleep(time.Second)
		_, confirms, _ := c.members[0].log.counts()
		require.Equal(t, 1, confirms)
		c.mustPut("b")
		time.Sleep(time.Second)
		_, confirms, _ = c.members[0].log.counts()
		require.Equal(t, 2, confirms)
	})
}

func TestLeaderKilledLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		for i := range 20 {
			c.mustPut(fmt.Sprint("v", i))
		}
		old := c.leader()
		require.NoError(t, old.crash())
		c.mustPut("after")
		require.NotEqual(t, old.id, c.leader().id)
		old.start(nil)
		rows := c.agree().Rows
		require.Len(t, rows, 21)
		require.Equal(t, "after", rows[20].Value)
	})
}

func TestAllKilledAtOnceLoseNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		for i := range 20 {
			c.mustPut(fmt.Sprint("v", i))
		}
		for _, m := range c.members {
			require.NoError(t, m.crash())
		}
		for _, m := range c.members {
			m.start(nil)
		}
		c.mustPut("after")
		require.Len(t, c.agree().Rows, 21)
	})
}

func TestMinorityTakesNothingAndCatchesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		old := c.leader()
		c.net.isolate(old.id)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := old.put(ctx, "lost")
		require.Error(t, err)
		c.mustPut("b")
		c.net.heal()
		c.mustPut("c")
		rows := c.agree().Rows
		require.Equal(t, []string{"a", "b", "c"}, values(rows))
	})
}

func values(rows []row) (v []string) {
	for _, r := range rows {
		v = append(v, r.Value)
	}
	return v
}

func TestFailedLogEndsTheNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		m := c.members[0]
		broken := errors.New("input/output error")
		m.log.mu.Lock()
		m.log.fail = broken
		m.log.mu.Unlock()
		_, err := m.node.Propose(t.Context(), []byte("b"))
		require.NoError(t, err)
		<-m.node.Stopped()
		require.Equal(t, []string{"a"}, values(m.state.snapshot().Rows))
		err = m.crash()
		require.ErrorIs(t, err, broken)
		var fatal *FatalError
		require.ErrorAs(t, err, &fatal)
		require.Equal(t, CauseLog, fatal.Cause)
	})
}

func TestFailedApplyEndsTheNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		m := c.members[0]
		m.state.mu.Lock()
		m.state.fail = errors.New("no such bucket")
		m.state.mu.Unlock()
		_, err := m.node.Propose(t.Context(), []byte("b"))
		require.NoError(t, err)
		<-m.node.Stopped()
		var fatal *FatalError
		require.ErrorAs(t, m.crash(), &fatal)
		require.Equal(t, CauseApply, fatal.Cause)
		_, err = m.put(t.Context(), "c")
		require.ErrorIs(t, err, ErrStopped)
	})
}

func TestHandOverNeedsNoElectionTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		time.Sleep(time.Second)
		old := c.leader()
		start := time.Now()
		require.NoError(t, old.node.HandOver(t.Context()))
		require.NotEqual(t, old.id, c.leader().id)
		require.Less(t, time.Since(start), 100*time.Millisecond)
		var no *NotLeaderError
		require.ErrorAs(t, old.node.TransferLeader(t.Context(), 1), &no)
	})
}

// Once per election timeout raft begins anew to count who is active: a hand-over then waits for a heartbeat's answer.
func TestHandOverWaitsUntilSomebodyWasHeardOf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		time.Sleep(time.Second)
		old := c.leader()
		require.NoError(t, old.node.do(t.Context(), func() {
			for to := uint64(1); to != 0; to, _ = old.node.successor() {
				old.node.raw.Tick()
			}
		}))
		require.NoError(t, old.node.HandOver(t.Context()))
		require.NotEqual(t, old.id, c.leader().id)
	})
}

func TestTransferToUnreachableFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		lead := c.leader()
		other := lead.id%3 + 1
		c.net.isolate(other)
		errs := make(chan error, 1)
		go func() { errs <- lead.node.TransferLeader(t.Context(), other) }()
		synctest.Wait()
		_, err := lead.node.Propose(t.Context(), []byte("x"))
		require.ErrorIs(t, err, ErrTransferring)
		require.ErrorIs(t, <-errs, ErrTransferFailed)
		c.mustPut("b")
	})
}

func TestMembersJoinAndLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		fresh := c.add(2)
		fresh.start(nil)
		lead := c.members[0]
		add := &raftpb.ConfChange{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(2))}
		gate := make(chan struct{})
		lead.state.hold(gate)
		_, err := lead.node.ProposeConfChange(t.Context(), add)
		require.NoError(t, err)
		_, err = lead.node.ProposeConfChange(t.Context(), add)
		require.ErrorIs(t, err, ErrConfChangeRefused, "the first is not applied yet")
		lead.state.hold(nil)
		close(gate)
		c.mustPut("b")
		require.Len(t, c.agree().Rows, 2)
		require.True(t, fresh.node.Status().Learner)
		peers, err := lead.node.Peers(t.Context())
		require.NoError(t, err)
		require.True(t, peers[2].Learner)

		promote := &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(2))}
		_, err = lead.node.ProposeConfChange(t.Context(), promote)
		require.NoError(t, err)
		c.mustPut("c")
		c.agree()
		require.False(t, fresh.node.Status().Learner)

		// The leader removes itself and steps down; the other one goes on alone.
		remove := &raftpb.ConfChange{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(1))}
		_, err = lead.node.ProposeConfChange(t.Context(), remove)
		require.NoError(t, err)
		for lead.node.Status().State == raft.StateLeader {
			time.Sleep(10 * time.Millisecond)
		}
		for fresh.node.Status().State != raft.StateLeader {
			time.Sleep(10 * time.Millisecond)
		}
		_, err = fresh.put(t.Context(), "d")
		require.NoError(t, err)
	})
}

func TestLogIsCutOnlyBelowTheDurableIndex(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, func(cfg *Config) { cfg.SnapshotCount, cfg.CatchUpEntries = 10, 5 })
		m := c.members[0]
		m.state.mu.Lock()
		m.state.flushEvery = 1 << 40
		m.state.mu.Unlock()
		for i := range 100 {
			c.mustPut(fmt.Sprint("v", i))
		}
		time.Sleep(time.Second)
		_, _, mark := m.log.counts()
		require.LessOrEqual(t, mark, m.state.Durable())
		require.Less(t, mark, uint64(20))
		m.state.mu.Lock()
		m.state.flush()
		m.state.mu.Unlock()
		time.Sleep(time.Second)
		_, _, mark = m.log.counts()
		require.Equal(t, m.node.Status().Applied-5, mark)
		require.NoError(t, m.crash())
		m.start(nil)
		c.mustPut("after")
		require.Len(t, c.agree().Rows, 101)
	})
}

func TestHooksFollowAWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var appended, committed uint64
		c := newCluster(t, 1, 1, func(cfg *Config) {
			cfg.Hooks = Hooks{Appended: func(i uint64) { appended = i }, Committed: func(i uint64) { committed = i }}
		})
		index := c.mustPut("a")
		synctest.Wait()
		require.Equal(t, index, appended)
		require.Equal(t, index, committed)
	})
}
