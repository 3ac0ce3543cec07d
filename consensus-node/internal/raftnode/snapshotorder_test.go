package raftnode

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// A snapshot that comes while an older change of members is committed and not applied yet: raft must not take over the newer membership
// first, or the older change would be made to it.
func TestASnapshotWaitsForWhatIsCommittedBeforeIt(t *testing.T) {
	first := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	log, state := &testLog{}, &testState{}
	state.now.Index, state.now.Term = 5, 1
	mark := wal.SnapshotMark{Index: 5, Term: 1, ConfState: first}
	require.NoError(t, log.MarkSnapshot(mark))
	n, err := New(Config{
		ID: 2, Mark: mark, HardState: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(5))},
		Applied: 5, AppliedTerm: 1, ConfState: first, Transport: &wire{log: log}, Log: log, Applier: state,
	})
	require.NoError(t, err)
	state.node = n
	s, err := NewStepper(n, 8)
	require.NoError(t, err)

	change, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(4))})
	require.NoError(t, err)
	require.NoError(t, s.Deliver(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1)),
		Index: new(uint64(5)), LogTerm: new(uint64(1)), Commit: new(uint64(6)),
		Entries: []*raftpb.Entry{{Type: raftpb.EntryConfChange.Enum(), Index: new(uint64(6)), Term: new(uint64(1)), Data: change}},
	}))
	require.NoError(t, s.Append())
	require.NoError(t, s.Answer())
	require.True(t, s.CanApply(), "the change is committed")

	// Meanwhile member 4 has gone again.
	_, err = s.Receive(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(10)), Term: new(uint64(1)), ConfState: first}},
	}, "image")
	require.NoError(t, err)
	require.NoError(t, s.Apply())
	require.Equal(t, []uint64{1, 2, 3, 4}, n.loop.voters, "as of the change")
	require.NoError(t, s.Answer())
	require.Equal(t, []uint64{1, 2, 3}, n.loop.voters, "as of the snapshot")
	require.Equal(t, []uint64{1, 2, 3}, n.raw.Status().Config.Voters[0].Slice(), "and raft says so, too")
}
