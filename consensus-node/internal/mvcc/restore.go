package mvcc

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Loader builds a State from the stored changes, which it takes in the order
// of their revisions. It gathers by key first and sorts once at the end, which
// makes millions of keys a matter of seconds.
//
// Its table is its own: a map of strings moves its keys each time it grows, and
// hashes them again, which took a third of a start with a million keys.
type Loader struct {
	compact int64
	last    Revision
	entries []entry // in the order in which the keys first came
	// table finds entries by the hash of their keys: each element is the hash in
	// its upper half and the entry's number, from 1, in its lower; 0 is free.
	table   []uint64
	seed    maphash.Seed
	pending bool // something that was compacted is still stored
}

// NewLoader starts a restore. compact is the newest compaction that the
// database knows of, scheduled or finished; -1 if there is none.
func NewLoader(compact int64) *Loader {
	const tableMin = 1 << 10
	return &Loader{compact: compact, last: Revision{Sub: -1}, table: make([]uint64, tableMin), seed: maphash.MakeSeed()}
}

// place finds where a key is in the table, or where it belongs.
func (l *Loader) place(key string) (at int, hash uint64, found bool) {
	const half = 32
	hash = maphash.String(l.seed, key) >> half
	mask := len(l.table) - 1
	for at = int(hash) & mask; ; at = (at + 1) & mask {
		switch e := l.table[at]; {
		case e == 0:
			return at, hash, false
		case e>>half == hash && l.entries[uint32(e)-1].key == key:
			return at, hash, true
		}
	}
}

// insert adds a key whose place is known.
func (l *Loader) insert(at int, hash uint64, e entry) {
	const half = 32
	l.entries = append(l.entries, e)
	l.table[at] = hash<<half | uint64(len(l.entries))
	if len(l.entries)*2 <= len(l.table) {
		return
	}
	old := l.table
	l.table = make([]uint64, 2*len(old))
	mask := len(l.table) - 1
	for _, e := range old {
		if e == 0 {
			continue
		}
		at := int(e>>half) & mask
		for l.table[at] != 0 {
			at = (at + 1) & mask
		}
		l.table[at] = e
	}
}

// Add takes the next stored change. Of a tombstone only the key is looked at.
// The Loader keeps nothing of kv. An entry without a key is what etcd's restore
// leaves when it raises the revision of a snapshot: no request can name it, but
// it counts in hashes. Add returns ErrBucketOrder, wrapped, if rev
// is not above the last one or kv cannot belong to it.
func (l *Loader) Add(rev Revision, tombstone bool, kv *mvccpb.KeyValue) error {
	switch {
	case !l.last.Less(rev):
		return fmt.Errorf("%w: %d_%d comes after %d_%d", ErrBucketOrder, rev.Main, rev.Sub, l.last.Main, l.last.Sub)
	case tombstone && len(kv.GetKey()) == 0:
		return fmt.Errorf("%w: %d_%d has no key", ErrBucketOrder, rev.Main, rev.Sub)
	case !tombstone && len(kv.GetKey()) > 0 && (kv.Version < 1 || kv.ModRevision != rev.Main || kv.CreateRevision > rev.Main):
		return fmt.Errorf("%w: %d_%d holds version %d of %d to %d", ErrBucketOrder,
			rev.Main, rev.Sub, kv.Version, kv.CreateRevision, kv.ModRevision)
	}
	l.last = rev
	r, lease := record{rev: rev}, int64(0)
	if !tombstone {
		r.create, r.version, lease = kv.CreateRevision, max(kv.Version, 1), kv.Lease
	}
	at, hash, found := l.place(borrow(kv.Key))
	if !found {
		l.insert(at, hash, entry{string(kv.Key), newSlot(&history{last: r, lease: lease})})
		l.pending = l.pending || (tombstone && rev.Main < l.compact)
		return nil
	}
	// Nobody sees the history yet, so it may change in place.
	h := l.entries[uint32(l.table[at])-1].slot.Load()
	h.older, h.last, h.lease = append(h.older, h.last), r, lease
	l.pending = l.pending || rev.Main <= l.compact
	return nil
}

// State ends the restore. The revision is that of the last change or the
// compact revision, whichever is higher: compaction may have dropped all that
// came last. If stored changes are left over from an interrupted compaction,
// Compacting is true and CompactStep finds them.
func (l *Loader) State() *State {
	s := New()
	s.compact = l.compact
	s.rev = max(s.rev, l.last.Main, l.compact)
	s.sweep.active = l.pending
	for _, at := range l.order() {
		e := l.entries[at]
		if e.key != "" && !e.slot.Load().last.tombstone() {
			s.live++
		}
		s.tree.Load(e)
	}
	l.entries, l.table = nil, nil
	return s
}

// order gives the numbers of the entries in the order of their keys. Keys are
// compared by the eight bytes behind what all have in common first: that spares
// most comparisons the way to the keys themselves.
func (l *Loader) order() []uint32 {
	common := commonPrefix(l.entries)
	type ranked struct {
		head uint64
		at   uint32
	}
	ranks := make([]ranked, len(l.entries))
	for i, e := range l.entries {
		var head [8]byte
		copy(head[:], e.key[common:])
		ranks[i] = ranked{binary.BigEndian.Uint64(head[:]), uint32(i)}
	}
	slices.SortFunc(ranks, func(a, b ranked) int {
		if c := cmp.Compare(a.head, b.head); c != 0 {
			return c
		}
		return strings.Compare(l.entries[a.at].key, l.entries[b.at].key)
	})
	order := make([]uint32, len(ranks))
	for i, r := range ranks {
		order[i] = r.at
	}
	return order
}

// commonPrefix is how many bytes all keys have in common at their begin.
func commonPrefix(entries []entry) int {
	if len(entries) == 0 {
		return 0
	}
	first, n := entries[0].key, len(entries[0].key)
	for _, e := range entries {
		n = min(n, len(e.key))
		for i := 0; i < n; i++ {
			if e.key[i] != first[i] {
				n = i
			}
		}
	}
	return n
}
