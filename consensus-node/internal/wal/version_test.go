package wal_test

import (
	"encoding/binary"
	"hash/crc32"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// TestLaterVersion: a log of a later program is refused as such, whether or not its header has our layout, and is no damage.
func TestLaterVersion(t *testing.T) {
	fsys := faultfs.New(1)
	log, err := wal.Create(fsys, dir, wal.Metadata{}, wal.Options{SegmentBytes: 1024})
	require.NoError(t, err)
	require.NoError(t, log.Close())
	header := fsys.Content(segmentPath(1))
	binary.LittleEndian.PutUint32(header[8:], 2)
	for _, change := range []func(){
		func() { header[100] ^= 1 },
		func() {
			binary.LittleEndian.PutUint32(header[124:], crc32.Checksum(header[:124], crc32.MakeTable(crc32.Castagnoli)))
		},
	} {
		change()
		fsys.SetContent(segmentPath(1), header)
		_, _, err = wal.Open(fsys, dir, wal.Options{})
		require.ErrorIs(t, err, wal.ErrVersion)
		require.ErrorContains(t, err, segmentPath(1))
	}
}

// TestTakingTurns lets appends, confirmations, marks, releases and preparations run at once, for the race detector and for the outcome.
func TestTakingTurns(t *testing.T) {
	const last = 400
	fsys := faultfs.New(1)
	opts := wal.Options{SegmentBytes: 2048}
	log, err := wal.Create(fsys, dir, wal.Metadata{}, opts)
	require.NoError(t, err)
	appended := make(chan uint64, last)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(appended)
		for i := uint64(1); i <= last; i++ {
			if err := log.Append([]*raftpb.Entry{entry(i, 1, "data")}, nil, i%7 == 0); err != nil {
				t.Error(err)
				return
			}
			appended <- i
		}
	})
	wg.Go(func() {
		for i := range appended {
			if i%20 != 0 {
				continue
			}
			if err := log.MarkSnapshot(wal.SnapshotMark{Index: i - 10, Term: 1}); err != nil {
				t.Error(err)
			}
			if err := log.Release(i); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			if err := log.Prepare(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			if err := log.Confirm(); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	require.NoError(t, log.Close())
	_, state, err := wal.Open(fsys, dir, opts)
	require.NoError(t, err)
	require.Equal(t, uint64(last-10), state.Snapshot.Index)
	require.Len(t, state.Entries, 10)
}
