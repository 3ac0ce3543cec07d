package raftnode

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// The only voter has just begun to lead again: what it knows to be committed is behind what it acknowledged before, and a member that asks
// for a read index gets no answer from that. (It may have been a learner for the leader alone, which has yet to apply its promotion again.)
func TestTheOnlyVoterAnswersNoReadBeforeItsTermBegan(t *testing.T) {
	const acknowledged = 5
	hard := &raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(1)), Commit: new(uint64(2))}
	var entries []*raftpb.Entry
	for i := uint64(1); i <= acknowledged; i++ {
		entries = append(entries, &raftpb.Entry{Index: &i, Term: new(uint64(2)), Data: []byte("x")})
	}
	log, state := &testLog{}, &testState{}
	require.NoError(t, log.Append(entries, hard, true))
	out := &wire{log: log}
	n, err := New(Config{
		ID: 1, Transport: out, Log: log, Applier: state, HardState: hard, Entries: entries, Applied: 2, AppliedTerm: 2,
		ConfState: &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}},
	})
	require.NoError(t, err)
	state.node = n
	s, err := NewStepper(n, 8)
	require.NoError(t, err)
	ask := func() (answers []uint64) {
		out.sent = nil
		require.NoError(t, s.Deliver(&raftpb.Message{
			Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)), Entries: []*raftpb.Entry{{Data: []byte("id")}},
		}))
		for _, m := range out.sent {
			if m.GetType() == raftpb.MsgReadIndexResp {
				answers = append(answers, m.GetIndex())
			}
		}
		return answers
	}
	for range 4 { // a vote for itself, of either kind
		if n.Status().Leader == 0 {
			require.NoError(t, s.Append())
			require.NoError(t, s.Answer())
		}
	}
	require.EqualValues(t, 1, n.Status().Leader)
	require.Less(t, n.Status().Commit, uint64(acknowledged))
	require.Empty(t, ask())
	require.NoError(t, s.Append())
	require.NoError(t, s.Answer())
	require.Equal(t, []uint64{acknowledged + 1}, ask())
}
