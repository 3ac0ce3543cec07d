package mvcc

import (
	"slices"
	"sort"
	"sync/atomic"
	"unsafe"

	"github.com/tidwall/btree"
)

// record is what the index knows of one change of a key. Version 0 marks a
// tombstone, whose create revision is 0 too.
type record struct {
	rev     Revision
	create  int64
	version int64
}

func (r record) tombstone() bool { return r.version == 0 }

// history is what the index knows of one key, oldest first: older, then last.
// It is immutable once it is in a tree. A successor may share older's array
// and append behind its end: there is one writer and one line of successors,
// so no two of them ever append at the same place.
//
// Trees of several Views share a key's slot, and a View may meet a history that
// goes on after the View's revision. It must ask with at and before, and never
// look at last.
type history struct {
	last  record
	lease int64 // of last; 0 for none and for tombstones
	older []record
}

// at returns the key's record as of revision main, false if the key did not
// exist then.
func (h *history) at(main int64) (record, bool) {
	if h.last.rev.Main <= main {
		return h.last, !h.last.tombstone()
	}
	i := firstAfter(h.older, main)
	if i == 0 {
		return record{}, false
	}
	r := h.older[i-1]
	return r, !r.tombstone()
}

// before returns the newest record below revision main, tombstones included;
// false if the index has none.
func (h *history) before(main int64) (record, bool) {
	if h.last.rev.Main < main {
		return h.last, true
	}
	if i := firstAfter(h.older, main-1); i > 0 {
		return h.older[i-1], true
	}
	return record{}, false
}

// ends says whether a tombstone at revision main is among what the index has of the key.
func (h *history) ends(main int64) bool {
	if h.last.rev.Main == main && h.last.tombstone() {
		return true
	}
	for i := firstAfter(h.older, main) - 1; i >= 0 && h.older[i].rev.Main == main; i-- {
		if h.older[i].tombstone() {
			return true
		}
	}
	return false
}

// firstAfter returns the position of the first record above revision main.
func firstAfter(recs []record, main int64) int {
	return sort.Search(len(recs), func(i int) bool { return recs[i].rev.Main > main })
}

// next returns the successor of h that ends in r. A nil h starts a history.
func (h *history) next(r record, lease int64) *history {
	n := &history{last: r, lease: lease}
	if h != nil {
		n.older = append(h.older, h.last) //nolint:gocritic // the versions of one history share their past
	}
	return n
}

// trim returns the successor of h without its first n records, nil if none is
// left. The rest moves to an array of its own, so that the old one is freed,
// unless most of it is still in use: long histories are trimmed bit by bit.
func (h *history) trim(n int) *history {
	switch {
	case n > len(h.older):
		return nil
	case n == len(h.older):
		return &history{last: h.last, lease: h.lease}
	}
	rest := h.older[n:]
	if n >= len(rest) {
		rest = slices.Clone(rest)
	}
	return &history{last: h.last, lease: h.lease, older: rest}
}

// slot is where a key's history is found. The writer puts successors into it
// in place: that spares a put to a known key the copy of tree nodes, and no
// View can tell, since histories grow at their end. Compaction, which takes
// from the front, gives the key a new slot instead.
type slot struct{ atomic.Pointer[history] }

func newSlot(h *history) *slot {
	s := &slot{}
	s.Store(h)
	return s
}

// entry is an element of the tree. The key lies in the node beside the pointer
// so that a search touches the key bytes and nothing else of the entry.
type entry struct {
	key  string
	slot *slot
}

type tree = btree.BTreeG[entry]

// treeDegree makes nodes of 15 to 31 entries: smaller than what searching alone
// would like, since the first new key in a node after a View copies it.
const treeDegree = 16

func newTree() *tree {
	less := func(a, b entry) bool { return a.key < b.key }
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true, Degree: treeDegree})
}

// find returns the entry of key and its history, nil if the index has none.
func find(t *tree, key []byte) (entry, *history) {
	e, ok := t.Get(entry{key: borrow(key)})
	if !ok {
		return entry{}, nil
	}
	return e, e.slot.Load()
}

// lookup returns the history of key, nil if the index has none.
func lookup(t *tree, key []byte) *history {
	_, h := find(t, key)
	return h
}

// borrow views key as a string without copying it. The result must not
// outlive the call it is made for: the bytes belong to somebody else.
func borrow(key []byte) string {
	return unsafe.String(unsafe.SliceData(key), len(key)) //nolint:gosec // saves an allocation for each lookup
}

// span is a range of keys as requests give it: end empty means the one key,
// end "\x00" means every key from key on, anything else is exclusive.
type span struct{ key, end []byte }

func (s span) single() bool { return len(s.end) == 0 }

func (s span) open() bool { return len(s.end) == 1 && s.end[0] == 0 }

func (s span) contains(key string) bool {
	switch {
	case s.single():
		return key == borrow(s.key)
	case s.open():
		return key >= borrow(s.key)
	}
	return key >= borrow(s.key) && key < borrow(s.end)
}

// each calls fn for every entry of the span in key order until it returns
// false.
func (s span) each(t *tree, fn func(e entry, h *history) bool) {
	if s.single() {
		if e, h := find(t, s.key); h != nil {
			fn(e, h)
		}
		return
	}
	end, open := borrow(s.end), s.open()
	t.Ascend(entry{key: borrow(s.key)}, func(e entry) bool {
		return (open || e.key < end) && fn(e, e.slot.Load())
	})
}
