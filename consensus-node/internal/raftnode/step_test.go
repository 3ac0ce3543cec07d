package raftnode

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
)

// A single member does, step by step, what Run does: nothing is durable before Append, committed before Answer, or applied before Apply.
func TestStepsOfASingleMember(t *testing.T) {
	log, state := &testLog{}, &testState{}
	n, err := New(Config{ID: 1, Bootstrap: []raft.Peer{{ID: 1}}, Transport: &wire{log: log}, Log: log, Applier: state})
	require.NoError(t, err)
	state.node = n
	s, err := NewStepper(n, 8)
	require.NoError(t, err)
	_, err = NewStepper(n, 8)
	require.Error(t, err, "a node is driven once")

	settle := func() {
		for s.CanAppend() || s.CanAnswer() || s.CanApply() {
			require.NoError(t, s.Append())
			require.NoError(t, s.Answer())
			require.NoError(t, s.Apply())
		}
	}
	settle()
	require.Equal(t, raft.StateLeader, n.Status().State)

	before := n.Status()
	p, err := s.Propose([]byte("a"))
	require.NoError(t, err)
	position, err, ok := p.Answer()
	require.True(t, ok)
	require.NoError(t, err)
	require.Equal(t, before.Applied+1, position.Index)
	require.Less(t, log.durable.last(), position.Index)
	require.NoError(t, s.Append())
	require.Equal(t, position.Index, log.durable.last())
	require.Equal(t, before.Commit, n.Status().Commit)
	require.NoError(t, s.Answer())
	require.Equal(t, position.Index, n.Status().Commit)

	read := s.JoinRead()
	require.True(t, s.CanAsk())
	require.NoError(t, s.Ask())
	index, ok := read.Index()
	require.True(t, ok)
	require.Equal(t, position.Index, index)
	require.Less(t, n.Status().Applied, position.Index)
	settle()
	require.Equal(t, position.Index, n.Status().Applied)
	require.Equal(t, "a", state.snapshot().Rows[0].Value)
}

// While a queue is full the loop takes no work, and a proposal may be withdrawn.
func TestStepperIsBusy(t *testing.T) {
	log, state := &testLog{}, &testState{}
	n, err := New(Config{ID: 1, Bootstrap: []raft.Peer{{ID: 1}}, Transport: &wire{log: log}, Log: log, Applier: state})
	require.NoError(t, err)
	state.node = n
	s, err := NewStepper(n, 4)
	require.NoError(t, err)
	for s.CanAppend() || s.CanAnswer() || s.CanApply() {
		require.NoError(t, s.Append())
		require.NoError(t, s.Answer())
		require.NoError(t, s.Apply())
	}
	var last *Proposal
	for range 10 {
		last, err = s.Propose([]byte("x"))
		require.NoError(t, err)
	}
	require.True(t, s.Busy())
	_, _, ok := last.Answer()
	require.False(t, ok)
	require.True(t, last.Withdraw())
}
