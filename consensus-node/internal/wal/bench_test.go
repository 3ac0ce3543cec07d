package wal_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// BenchmarkAppend writes groups of entries of 256 bytes to a real file: without sync it shows the processor's share.
func BenchmarkAppend(b *testing.B) {
	for _, sync := range []bool{false, true} {
		for _, size := range []int{1, 16, 128} {
			b.Run(fmt.Sprintf("sync=%v/entries=%d", sync, size), func(b *testing.B) {
				benchmarkAppend(b, size, sync)
			})
		}
	}
}

func benchmarkAppend(b *testing.B, size int, sync bool) {
	log, err := wal.Create(vfs.OS{}, b.TempDir(), wal.Metadata{}, wal.Options{})
	require.NoError(b, err)
	defer func() { require.NoError(b, log.Close()) }()
	var term, next uint64 = 1, 0
	indexes := make([]uint64, size)
	entries := make([]*raftpb.Entry, size)
	for i := range entries {
		entries[i] = &raftpb.Entry{Index: &indexes[i], Term: &term, Data: []byte(strings.Repeat("v", 256))}
	}
	hs := &raftpb.HardState{Term: &term, Commit: &next}
	b.SetBytes(int64(size) * 256)
	b.ReportAllocs()
	for b.Loop() {
		for i := range indexes {
			next++
			indexes[i] = next
		}
		if err := log.Append(entries, hs, sync); err != nil {
			b.Fatal(err)
		}
		if next%(1<<17) < uint64(size) { // keep the disk from filling up
			mark := next - 1
			require.NoError(b, log.MarkSnapshot(wal.SnapshotMark{Index: mark, Term: term}))
			require.NoError(b, log.Release(mark))
		}
	}
}

// TestAppendAllocations holds the append path to no allocation at all.
func TestAppendAllocations(t *testing.T) {
	log, err := wal.Create(vfs.OS{}, t.TempDir(), wal.Metadata{}, wal.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, log.Close()) }()
	var index, term uint64 = 0, 1
	entries := []*raftpb.Entry{{Index: &index, Term: &term, Data: make([]byte, 256)}}
	hs := &raftpb.HardState{Term: &term, Commit: &index}
	require.Zero(t, testing.AllocsPerRun(500, func() {
		index++
		if err := log.Append(entries, hs, false); err != nil {
			t.Error(err)
		}
	}))
}
