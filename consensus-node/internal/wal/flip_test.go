package wal_test

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// closedLog fills a log of several segments, with marks, releases and replaced entries, and closes it, so that all of it is
// confirmed.
func closedLog(t *testing.T, rng *rand.Rand) (*faultfs.FS, string) {
	t.Helper()
	fsys := faultfs.New(rng.Uint64())
	log, err := wal.Create(fsys, dir, wal.Metadata{ClusterID: 1, NodeID: 2, Incarnation: 3}, wal.Options{SegmentBytes: 1024, Salt: rng.Uint64})
	require.NoError(t, err)
	for i := uint64(1); i <= 24; i++ {
		data := strings.Repeat("v", rng.IntN(60))
		entries := []*raftpb.Entry{entry(i, 1+i/8, data), entry(i+1, 1+i/8, data)}
		require.NoError(t, log.Append(entries, hardState(1+i/8, 1, i), i%3 > 0))
		if i == 15 {
			require.NoError(t, log.MarkSnapshot(wal.SnapshotMark{Index: 10, Term: 2, ConfState: &raftpb.ConfState{Voters: []uint64{1}}}))
			require.NoError(t, log.Release(10))
		}
	}
	require.NoError(t, log.Close())
	state := reopen(t, fsys)
	fsys.Kill()
	return fsys, state
}

func reopen(t *testing.T, fsys *faultfs.FS) string {
	t.Helper()
	_, state, err := wal.Open(fsys, dir, wal.Options{})
	require.NoError(t, err)
	return stateString(state)
}

// TestFlips flips single bits all over a confirmed log, one at a time. Each is found as damage, or changes nothing: never
// is anything cut. Damage leaves the files as they are.
func TestFlips(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed(t), 2))
	fsys, want := closedLog(t, rng)
	names, err := fsys.List(dir)
	require.NoError(t, err)
	segments, found, harmless := 0, 0, 0
	for _, base := range names {
		if !strings.HasSuffix(base, ".log") {
			continue
		}
		segments++
		name := filepath.Join(dir, base)
		content := fsys.Content(name)
		for off := rng.Int64N(3); off < int64(len(content)); off += 1 + rng.Int64N(4) {
			bit := uint(rng.IntN(8))
			require.NoError(t, fsys.Flip(name, off, bit))
			before := fsys.Content(name)
			_, state, err := wal.Open(fsys, dir, wal.Options{})
			var damage *wal.DamageError
			switch {
			case errors.As(err, &damage):
				found++
				require.Equal(t, name, damage.File, "flip of byte %d of %s: %v", off, base, err)
				require.LessOrEqual(t, damage.Offset, off, "%v", err)
				require.Equal(t, before, fsys.Content(name), "changed by Open after a flip of byte %d of %s", off, base)
			default:
				require.NoError(t, err, "flip of byte %d of %s", off, base)
				require.Equal(t, want, stateString(state), "flip of byte %d of %s was cut", off, base)
				harmless++
			}
			fsys.Kill()
			fsys.SetContent(name, content)
		}
	}
	require.Greater(t, segments, 3)
	// Harmless are only the unused ends of segments and the last confirmation.
	require.Greater(t, found, 3*harmless)
}

// TestFlipAndPowerCut: a bit rots in what was durable while the power cut tears what was not. The first must not hide behind
// the second.
func TestFlipAndPowerCut(t *testing.T) {
	s := seed(t)
	for i := range uint64(100) {
		rng := rand.New(rand.NewPCG(s+i, 3))
		fsys := faultfs.New(s + i)
		log, err := wal.Create(fsys, dir, wal.Metadata{}, wal.Options{SegmentBytes: 64 << 10, Salt: rng.Uint64})
		require.NoError(t, err)
		index, durable := uint64(0), int64(0)
		add := func(sync bool) {
			index++
			require.NoError(t, log.Append([]*raftpb.Entry{entry(index, 1, strings.Repeat("d", rng.IntN(2000)))}, nil, sync))
		}
		for range 5 {
			add(true)
		}
		require.NoError(t, log.Confirm())
		require.NoError(t, wal.Dump(fsys, dir, func(r wal.Record) error { durable = r.Durable; return nil }))
		for range rng.IntN(5) {
			add(false)
		}
		name := segmentPath(1)
		require.NoError(t, fsys.Flip(name, rng.Int64N(durable), uint(rng.IntN(8))))
		fsys.Restart()
		_, _, err = wal.Open(fsys, dir, wal.Options{})
		var damage *wal.DamageError
		require.ErrorAs(t, err, &damage, "seed %d", s+i)
	}
}
