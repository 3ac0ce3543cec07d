package raftnode

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// A disk that hangs fills the queue before it, and then proposals are no longer taken: certainly not proposed. What was taken is
// carried out, where it was said to be, once the disk goes on.
func TestHungDiskHoldsProposalsBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		m := c.members[0]
		gate := make(chan struct{})
		m.log.hold(gate)
		taken := map[uint64]string{}
		for i := range 2 * workQueueMax {
			value := fmt.Sprint("v", i)
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			pos, err := m.node.Propose(ctx, []byte(value))
			cancel()
			if err != nil {
				require.ErrorIs(t, err, context.DeadlineExceeded)
				break
			}
			taken[pos.Index] = value
			synctest.Wait()
		}
		require.InDelta(t, workQueueMax, len(taken), 8)
		m.log.hold(nil)
		close(gate)
		c.mustPut("z")
		rows := c.agree().Rows
		require.Len(t, rows, len(taken)+2)
		for _, r := range rows[1 : len(rows)-1] {
			require.Equal(t, taken[r.Index], r.Value)
		}
	})
}

// A caller that leaves while the loop holds its proposal back takes it along.
func TestCallerLeavesBeforeTheProposal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 1, nil)
		c.mustPut("a")
		n := c.members[0].node
		ctx, cancel := context.WithCancel(t.Context())
		left := &proposal{entry: &raftpb.Entry{Data: []byte("left")}, answer: make(chan proposalAnswer, 1)}
		stays := &proposal{entry: &raftpb.Entry{Data: []byte("stays")}, answer: make(chan proposalAnswer, 1)}
		left.claimed.Store(true) // as its caller does
		require.NoError(t, n.do(t.Context(), func() { n.loop.batch = append(n.loop.batch, left, stays) }))
		require.NoError(t, (<-stays.answer).err)
		cancel()
		_, err := n.Propose(ctx, []byte("late"))
		if err != nil { // the loop may have been quicker than the look at the context
			require.ErrorIs(t, err, context.Canceled)
		}
		c.mustPut("z")
		require.NotContains(t, values(c.agree().Rows), "left")
		require.Contains(t, values(c.agree().Rows), "stays")
		require.Equal(t, err == nil, slices.Contains(values(c.agree().Rows), "late"))
	})
}

func TestMessagesOfOthersAreSortedAndChecked(t *testing.T) {
	n, err := New(Config{ID: 1, Transport: &link{}, Log: &testLog{}, Applier: &testState{}})
	require.NoError(t, err)
	msg := func(typ raftpb.MessageType, from, to, term uint64, entries int) *raftpb.Message {
		return &raftpb.Message{Type: typ.Enum(), From: &from, To: &to, Term: &term, Entries: make([]*raftpb.Entry, entries)}
	}
	step := func(m *raftpb.Message) { require.NoError(t, n.Step(t.Context(), m)) }

	// Appends stay in order whether they carry entries or only a commit index.
	step(msg(raftpb.MsgApp, 2, 1, 3, 1))
	step(msg(raftpb.MsgApp, 2, 1, 3, 0))
	require.Len(t, n.bulk, 2)
	step(msg(raftpb.MsgHeartbeat, 2, 1, 3, 0))
	step(msg(raftpb.MsgReadIndex, 2, 1, 0, 1))
	require.Len(t, n.urgent, 2)

	for _, m := range []*raftpb.Message{
		msg(raftpb.MsgApp, 2, 3, 3, 1),                                    // for another member
		msg(raftpb.MsgApp, 1, 1, 3, 1),                                    // from itself
		msg(raftpb.MsgApp, 0, 1, 3, 1),                                    // from nobody
		msg(raftpb.MsgApp, 2, 1, 0, 1),                                    // without a term
		msg(raftpb.MsgStorageAppendResp, raft.LocalAppendThread, 1, 3, 0), // only from within
		msg(raftpb.MsgHup, 2, 1, 3, 0),
		msg(raftpb.MsgProp, 2, 1, 3, 1), // never forwarded
		msg(raftpb.MsgTransferLeader, 2, 1, 3, 0),
		msg(raftpb.MsgForgetLeader, 2, 1, 3, 0),
		msg(raftpb.MsgSnap, 2, 1, 3, 0),      // comes with an image
		msg(raftpb.MsgReadIndex, 2, 1, 0, 0), // asks nothing
	} {
		step(m)
	}
	require.Len(t, n.bulk, 2)
	require.Len(t, n.urgent, 2)
}

func TestStepWaitsWhileTheNodeIsBusy(t *testing.T) {
	n, err := New(Config{ID: 1, Transport: &link{}, Log: &testLog{}, Applier: &testState{}})
	require.NoError(t, err)
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1))}
	for range cap(n.bulk) {
		require.NoError(t, n.Step(t.Context(), m))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, n.Step(ctx, m), context.Canceled)
}
