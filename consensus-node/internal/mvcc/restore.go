package mvcc

import (
	"fmt"
	"hash/maphash"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Loader builds a State from the stored changes, which it takes in the order
// of their revisions. It gathers by key first and sorts once at the end, which
// makes a million keys a matter of half a second.
//
// Its table is its own. A map of strings moves its keys each time it grows, and
// hashes them again. And a look-up in any table of that size waits for memory
// most of the time: the Loader gathers some changes and has the places of all
// their keys fetched at once.
type Loader struct {
	compact int64
	last    Revision
	entries entries // in the order in which the keys first came
	// table finds entries by the hash of their keys: each element is the hash in
	// its upper half and the entry's number, from 1, in its lower; 0 is free.
	table   []uint64
	seed    maphash.Seed
	pending bool // something that was compacted is still stored

	waiting []change
	keys    []byte // of waiting, one behind the other
	slots   []slot // to be used
}

// change is one that waits until its key is looked up.
type change struct {
	record
	lease  int64
	hash   uint64
	keyEnd int // in Loader.keys
	// place is what the table held at the key's place when that was fetched.
	place uint64
}

const (
	tableMin = 1 << 10
	// hashShift leaves of a hash the half that a table's element has.
	hashShift = 32
	// waitingMax is how many changes are looked up together.
	waitingMax = 64
	// slotBlock is how many slots are made at once: they live as long as their keys, mostly.
	slotBlock = 64
)

// NewLoader starts a restore. compact is the newest compaction that the
// database knows of, scheduled or finished; -1 if there is none.
func NewLoader(compact int64) *Loader {
	return &Loader{
		compact: compact, last: Revision{Sub: -1}, table: make([]uint64, tableMin), seed: maphash.MakeSeed(),
		waiting: make([]change, 0, waitingMax),
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
	l.keys = append(l.keys, kv.Key...)
	c := change{record: record{rev: rev}, hash: maphash.Bytes(l.seed, kv.Key) >> hashShift, keyEnd: len(l.keys)}
	if !tombstone {
		c.create, c.version, c.lease = kv.CreateRevision, max(kv.Version, 1), kv.Lease
	}
	if l.waiting = append(l.waiting, c); len(l.waiting) == waitingMax {
		l.lookUp()
	}
	return nil
}

// lookUp puts the changes that wait into the histories of their keys.
func (l *Loader) lookUp() {
	mask := uint64(len(l.table) - 1)
	for i := range l.waiting {
		c := &l.waiting[i]
		c.place = l.table[c.hash&mask] // none of these waits for the one before
	}
	from := 0
	for i := range l.waiting {
		c := &l.waiting[i]
		l.take(c, l.keys[from:c.keyEnd])
		from = c.keyEnd
	}
	l.waiting, l.keys = l.waiting[:0], l.keys[:0]
}

func (l *Loader) take(c *change, key []byte) {
	at, found := l.place(borrow(key), c.hash)
	if !found {
		l.insert(at, c.hash, entry{string(key), l.newSlot(&history{last: c.record, lease: c.lease})})
		l.pending = l.pending || (c.tombstone() && c.rev.Main < l.compact)
		return
	}
	// Nobody sees the history yet, so it may change in place.
	h := l.entries.at(uint32(l.table[at]) - 1).slot.Load()
	h.older, h.last, h.lease = append(h.older, h.last), c.record, c.lease
	l.pending = l.pending || c.rev.Main <= l.compact
}

func (l *Loader) newSlot(h *history) *slot {
	if len(l.slots) == 0 {
		l.slots = make([]slot, slotBlock)
	}
	s := &l.slots[0]
	l.slots = l.slots[1:]
	s.Store(h)
	return s
}

// place finds where a key is in the table, or where it belongs.
func (l *Loader) place(key string, hash uint64) (at int, found bool) {
	mask := len(l.table) - 1
	for at = int(hash) & mask; ; at = (at + 1) & mask {
		switch e := l.table[at]; {
		case e == 0:
			return at, false
		case e>>hashShift == hash && l.entries.at(uint32(e)-1).key == key:
			return at, true
		}
	}
}

// insert adds a key whose place is known.
func (l *Loader) insert(at int, hash uint64, e entry) {
	l.entries.add(e)
	l.table[at] = hash<<hashShift | uint64(l.entries.count)
	if l.entries.count*2 <= len(l.table) {
		return
	}
	old := l.table
	l.table = make([]uint64, 2*len(old))
	mask := len(l.table) - 1
	for _, e := range old {
		if e == 0 {
			continue
		}
		at := int(e>>hashShift) & mask
		for l.table[at] != 0 {
			at = (at + 1) & mask
		}
		l.table[at] = e
	}
}

// State ends the restore. The revision is that of the last change or the
// compact revision, whichever is higher: compaction may have dropped all that
// came last. If stored changes are left over from an interrupted compaction,
// Compacting is true and CompactStep finds them.
func (l *Loader) State() *State {
	l.lookUp()
	s := New()
	s.compact = l.compact
	s.rev = max(s.rev, l.last.Main, l.compact)
	s.sweep.active = l.pending
	l.table = nil
	for _, r := range l.entries.order() {
		e := *l.entries.at(r.at)
		if e.key != "" && !e.slot.Load().last.tombstone() {
			s.live++
		}
		s.tree.Load(e)
	}
	l.entries = entries{}
	return s
}

// entries are a list that grows without being moved.
type entries struct {
	blocks [][]entry
	count  int
}

const entryBlock = 1 << 14

func (l *entries) add(e entry) {
	if l.count%entryBlock == 0 {
		l.blocks = append(l.blocks, make([]entry, entryBlock))
	}
	l.blocks[l.count/entryBlock][l.count%entryBlock] = e
	l.count++
}

func (l *entries) at(n uint32) *entry { return &l.blocks[n/entryBlock][n%entryBlock] }
