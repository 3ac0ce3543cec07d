package store

import (
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// record is an uncommitted change, as it will be stored and as it is read.
type record struct {
	rev       mvcc.Revision
	tombstone bool
	data      []byte
	kv        *mvccpb.KeyValue
}

// segment is a run of uncommitted changes: records in the order of their
// revisions, and what was dropped meanwhile. Copies of it stay what they are
// while the original is appended to.
type segment struct {
	recs  []record
	drops dropSet
}

// from returns the position of the first record at or above rev.
func (s *segment) from(rev mvcc.Revision) int {
	lo, hi := 0, len(s.recs)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if s.recs[mid].rev.Less(rev) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func (s *segment) find(rev mvcc.Revision) *record {
	if i := s.from(rev); i < len(s.recs) && s.recs[i].rev == rev {
		return &s.recs[i]
	}
	return nil
}

// generation is the segment that Apply fills, with all else that goes into the
// same transaction.
type generation struct {
	segment
	rows  []Row
	index uint64
	term  uint64
	conf  *raftpb.ConfState
	seq   uint64    // of the last batch in it
	bytes int       // about what it holds in memory
	count int       // operations on bbolt
	since time.Time // when its first batch came
}

// What a record, a row and a drop take beside the bytes they point to.
const (
	recordOverhead = 96
	rowOverhead    = 88
	dropOverhead   = 24
)

func (g *generation) add(b *Batch, encoded [][]byte) (bytes int) {
	for i := range b.Writes {
		w := &b.Writes[i]
		g.recs = append(g.recs, record{rev: w.Rev, tombstone: w.Tombstone, data: encoded[i], kv: w.KV})
		bytes += len(encoded[i]) + recordOverhead
	}
	for i := range b.Rows {
		bytes += len(b.Rows[i].Key) + len(b.Rows[i].Value) + rowOverhead
	}
	g.rows = append(g.rows, b.Rows...)
	if len(b.Drop) > 0 {
		g.drops = g.drops.with(b.Drop)
		bytes += len(b.Drop) * dropOverhead
	}
	if b.ConfState != nil {
		g.conf = b.ConfState
	}
	g.index, g.term = b.Index, max(b.Term, g.term)
	g.bytes += bytes
	g.count += len(b.Writes) + len(b.Rows) + len(b.Drop)
	return bytes
}

// dropSet is a set of dropped revisions, immutable: sorted runs, each less
// than half as long as the one before, so that a lookup is a few binary
// searches and adding many small sets does not copy the large ones each time.
type dropSet struct{ runs [][]mvcc.Drop }

func compareDrops(a, b mvcc.Drop) int { return a.Rev.Compare(b.Rev) }

// with returns the set with more drops, which it sorts in place and keeps.
func (d dropSet) with(more []mvcc.Drop) dropSet {
	slices.SortFunc(more, compareDrops)
	n := len(d.runs)
	for n > 0 && len(d.runs[n-1]) <= 2*len(more) {
		more = mergeDrops(d.runs[n-1], more)
		n--
	}
	return dropSet{append(slices.Clone(d.runs[:n]), more)}
}

func mergeDrops(a, b []mvcc.Drop) []mvcc.Drop {
	merged := make([]mvcc.Drop, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compareDrops(a[0], b[0]) <= 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	return append(append(merged, a...), b...)
}

func (d dropSet) empty() bool { return len(d.runs) == 0 }

func (d dropSet) has(rev mvcc.Revision) bool {
	for _, run := range d.runs {
		if _, ok := slices.BinarySearchFunc(run, mvcc.Drop{Rev: rev}, compareDrops); ok {
			return true
		}
	}
	return false
}

// sorted returns all drops in the order of their revisions.
func (d dropSet) sorted() []mvcc.Drop {
	var all []mvcc.Drop
	for _, run := range slices.Backward(d.runs) { // the short ones first
		all = mergeDrops(all, run)
	}
	return all
}
