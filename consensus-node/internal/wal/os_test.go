package wal_test

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// TestOnRealFiles takes a log through rotation, release, reuse of a spare and reopening on the machine's file system.
func TestOnRealFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "member", "log")
	syncs := 0
	opts := wal.Options{SegmentBytes: 64 << 10, ObserveSync: func(time.Duration) { syncs++ }}
	log, err := wal.Create(vfs.OS{}, dir, wal.Metadata{ClusterID: 1, NodeID: 2, Incarnation: 3}, opts)
	require.NoError(t, err)
	const last = 600
	for i := uint64(1); i <= last; i++ {
		require.NoError(t, log.Append([]*raftpb.Entry{entry(i, 1, strings.Repeat("v", 1000))}, nil, i%10 == 0))
		if i%150 == 0 {
			require.NoError(t, log.MarkSnapshot(wal.SnapshotMark{Index: i - 50, Term: 1}))
			require.NoError(t, log.Release(i-50))
		}
	}
	require.GreaterOrEqual(t, syncs, last/10)
	_, _, err = wal.Open(vfs.OS{}, dir, opts)
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, log.Close())

	log, state, err := wal.Open(vfs.OS{}, dir, opts)
	require.NoError(t, err)
	require.Equal(t, wal.Metadata{ClusterID: 1, NodeID: 2, Incarnation: 3}, state.Metadata)
	require.Equal(t, uint64(550), state.Snapshot.Index)
	require.Len(t, state.Entries, 50)
	require.Equal(t, uint64(last), state.Entries[49].GetIndex())
	require.NoError(t, log.Close())
}

// TestDumpOfNothing: a dump makes no files where there is no log.
func TestDumpOfNothing(t *testing.T) {
	dir := t.TempDir()
	require.ErrorIs(t, wal.Dump(vfs.OS{}, dir, func(wal.Record) error { return nil }), fs.ErrNotExist)
	names, err := vfs.OS{}.List(dir)
	require.NoError(t, err)
	require.Empty(t, names)
}
