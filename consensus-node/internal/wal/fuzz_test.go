package wal

import (
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
)

const fuzzDir = "/log"

// FuzzOpen gives the reader any bytes as one segment or two, as they are or with the checksums made right, so that what lies behind
// them is reached too. It must not panic or reserve more memory than a small multiple of the file, must refuse only with a
// DamageError or ErrVersion, and what it accepts must be a log that goes on.
func FuzzOpen(f *testing.F) {
	one, two := seedSegments(f)
	f.Add(one, []byte{}, false)
	f.Add(one, []byte{}, true)
	f.Add(one, two, true)
	f.Add(one[:300], two[:100], false)
	f.Add(make([]byte, 2048), []byte{}, true)
	f.Fuzz(func(t *testing.T, one, two []byte, mend bool) {
		if len(one)+len(two) > 1<<20 {
			return
		}
		if mend {
			one, two = slices.Clone(one), slices.Clone(two)
			end, chain := mendSegment(one, 1, 0, 0)
			mendSegment(two, 2, end, chain)
		}
		fsys := faultfs.New(1)
		require.NoError(t, fsys.MkdirAll(fuzzDir))
		fsys.SetContent(path(fuzzDir, 1), one)
		if len(two) > 0 {
			fsys.SetContent(path(fuzzDir, 2), two)
		}
		fsys.SetCapacity(4 << 20)
		checkDump(t, fsys, len(one)+len(two))
		checkOpen(t, fsys)
	})
}

func checkDump(t *testing.T, fsys *faultfs.FS, size int) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := Dump(fsys, fuzzDir, func(Record) error { return nil })
	runtime.ReadMemStats(&after)
	requireDamage(t, err)
	// An entry in memory is larger than the least one on the disk, by a fixed factor.
	require.LessOrEqual(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20+64*size))
}

func checkOpen(t *testing.T, fsys *faultfs.FS) {
	t.Helper()
	opts := Options{SegmentBytes: 2048}
	log, state, err := Open(fsys, fuzzDir, opts)
	requireDamage(t, err)
	if err != nil {
		return
	}
	last := log.LastIndex()
	if last == math.MaxUint64 {
		return
	}
	next, term := last+1, uint64(9)
	require.NoError(t, log.Append([]*raftpb.Entry{{Index: &next, Term: &term}}, nil, true))
	require.NoError(t, log.Close())
	_, again, err := Open(fsys, fuzzDir, opts)
	require.NoError(t, err)
	require.Len(t, again.Entries, len(state.Entries)+1)
}

func requireDamage(t *testing.T, err error) {
	t.Helper()
	var damage *DamageError
	if err != nil && !errors.As(err, &damage) && !errors.Is(err, ErrVersion) {
		require.NoError(t, err)
	}
}

// mendSegment makes the checksums of whatever b holds right, as far as its lengths allow, and returns where its groups end.
func mendSegment(b []byte, seq uint64, prevEnd int64, prevChain uint32) (int64, uint32) {
	if len(b) < MinSegmentBytes {
		return 0, 0
	}
	h := segmentHeader{
		md: Metadata{ClusterID: 1}, seq: seq, salt: order.Uint64(b[48:]), size: int64(len(b)),
		openingEnd: headerSize + int64(order.Uint16(b[64:])), prevEnd: prevEnd, prevChain: prevChain,
	}
	at := place{seq: seq, salt: h.salt, end: headerSize, chain: h.encode(b)}
	for at.end+groupHeaderSize <= int64(len(b)) && order.Uint32(b[at.end:]) == groupMagic {
		rest := b[at.end:]
		n := min(int64(order.Uint32(rest[32:])), int64(len(rest))-groupHeaderSize)
		kind := groupKind(order.Uint32(rest[4:]))
		gh := groupHeader{
			kind: kind, seq: seq, off: at.end, durable: min(int64(order.Uint32(rest[24:])), at.end),
			length: n, chain: at.chain, count: order.Uint32(rest[40:]),
		}
		gh.encode(rest, at.salt)
		chain := crc32.Update(at.chain, castagnoli, rest[:groupHeaderSize])
		for records := rest[groupHeaderSize : groupHeaderSize+n]; recordExtent(records) > 0; {
			extent := recordExtent(records)
			chain = crc32.Update(chain, castagnoli, records[4:extent])
			order.PutUint32(records, chain)
			records = records[extent:]
		}
		if kind == kindSeal {
			break
		}
		at.end, at.chain = at.end+groupHeaderSize+n, chain
	}
	return at.end, at.chain
}

// seedSegments returns two segments of a real log.
func seedSegments(f *testing.F) (one, two []byte) {
	f.Helper()
	fsys := faultfs.New(1)
	log, err := Create(fsys, fuzzDir, Metadata{ClusterID: 1}, Options{SegmentBytes: 1024, Salt: func() uint64 { return 7 }})
	require.NoError(f, err)
	for i := uint64(1); i <= 10; i++ {
		term := i/4 + 1
		require.NoError(f, log.Append([]*raftpb.Entry{{Index: &i, Term: &term, Data: make([]byte, 20)}},
			&raftpb.HardState{Term: &term, Commit: &i}, i%2 == 0))
	}
	require.NoError(f, log.MarkSnapshot(SnapshotMark{Index: 8, Term: 3, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}))
	require.NoError(f, log.Close())
	return fsys.Content(path(fuzzDir, 1)), fsys.Content(path(fuzzDir, 2))
}
