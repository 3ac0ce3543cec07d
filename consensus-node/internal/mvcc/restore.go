package mvcc

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Loader builds a State from the stored changes, which it takes in the order
// of their revisions. It gathers by key first and sorts once at the end, which
// makes millions of keys a matter of seconds.
type Loader struct {
	compact int64
	last    Revision
	keys    map[string]*history
	pending bool // something that was compacted is still stored
}

// NewLoader starts a restore. compact is the newest compaction that the
// database knows of, scheduled or finished; -1 if there is none.
func NewLoader(compact int64) *Loader {
	return &Loader{compact: compact, last: Revision{Sub: -1}, keys: make(map[string]*history)}
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
	h := l.keys[borrow(kv.Key)]
	if h == nil {
		l.keys[string(kv.Key)] = &history{last: r, lease: lease}
		l.pending = l.pending || (tombstone && rev.Main < l.compact)
		return nil
	}
	// Nobody sees the history yet, so it may change in place.
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
	entries := make([]entry, 0, len(l.keys))
	for key, h := range l.keys {
		entries = append(entries, entry{key, newSlot(h)})
		if key != "" && !h.last.tombstone() {
			s.live++
		}
	}
	l.keys = nil
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	for _, e := range entries {
		s.tree.Load(e)
	}
	return s
}
