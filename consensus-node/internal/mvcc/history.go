package mvcc

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Changes reads stored changes in the order of their revisions, from and to
// included, until fn returns an error, which Scan then returns. It must see at
// least what the View's index holds (see the package comment). Key-values are
// shared as those of Values are; of a tombstone the key matters alone.
type Changes interface {
	Scan(from, to Revision, fn func(rev Revision, tombstone bool, kv *mvccpb.KeyValue) error) error
}

// KeyRange is a range of keys in the form of requests: End empty for the one
// key, "\x00" for all keys from Key on, else exclusive.
type KeyRange struct{ Key, End []byte }

// HistoryOptions says which events History gives.
type HistoryOptions struct {
	// Match takes the events whose key is in any of the ranges; none means all.
	Match []KeyRange
	// Prev, if set, is where PrevKv is read from. It stays nil for keys that did
	// not exist before and for what is compacted.
	Prev Values
}

// History calls fn for each revision from from to to, both included, that has
// matching events, with those events in order, until fn returns false. The
// slice is fn's only during the call, the events may be kept.
//
// Event.Prev is set as in Effects, except for events at the compact revision
// itself: what was before them is compacted.
//
// Errors: ErrGRPCCompacted if from is below the compact revision,
// ErrGRPCFutureRev if to is above the view's; ErrBucketOrder, wrapped, if a
// revision is missing: events are never left out silently.
func (v *View) History(src Changes, from, to int64, opts HistoryOptions, fn func(rev int64, events []Event) bool) error {
	from = max(from, 1)
	switch {
	case from < v.compact:
		return rpctypes.ErrGRPCCompacted
	case to > v.rev:
		return rpctypes.ErrGRPCFutureRev
	case from > to:
		return nil
	}
	r := replay{v: v, opts: opts, fn: fn, seq: sequenceFrom(max(from, v.compact+1, 2))}
	err := src.Scan(Revision{Main: from}, Revision{Main: to, Sub: maxSub}, r.add)
	if r.stopped {
		return nil
	}
	if err == nil {
		err = r.seq.end(to)
	}
	if err != nil {
		return err
	}
	r.flush()
	return nil
}

const maxSub = 1<<63 - 1

// replay turns stored changes into events, one main revision at a time.
type replay struct {
	v       *View
	opts    HistoryOptions
	fn      func(int64, []Event) bool
	seq     sequence // of all changes above the compact revision
	events  []Event  // of the main revision that is being read
	stopped bool
}

// errStop ends a scan whose reader has had enough.
type errStop struct{}

func (errStop) Error() string { return "mvcc: the reader has stopped" }

func (r *replay) add(rev Revision, tombstone bool, kv *mvccpb.KeyValue) error {
	if rev.Main <= r.v.compact && !r.held(rev, kv.Key) {
		return nil // compacted, and not dropped yet
	}
	if len(r.events) > 0 && r.events[0].Kv.ModRevision != rev.Main && !r.flush() {
		return errStop{}
	}
	if rev.Main > r.v.compact {
		if err := r.seq.add(rev); err != nil {
			return err
		}
	}
	if !r.match(kv.Key) {
		return nil
	}
	ev, err := r.event(rev, tombstone, kv)
	if err != nil {
		return err
	}
	r.events = append(r.events, ev)
	return nil
}

// held says whether the index, compacted as far as the view says, has rev.
func (r *replay) held(rev Revision, key []byte) bool {
	h := lookup(r.v.tree, key)
	if h == nil {
		return false
	}
	rec, ok := h.before(r.v.compact + 1)
	return ok && rec.rev == rev
}

// match says whether events of key are asked for. An empty key is the mark of
// a raised revision (see Loader.Add) and no change.
func (r *replay) match(key []byte) bool {
	if len(key) == 0 || len(r.opts.Match) == 0 {
		return len(key) > 0
	}
	for _, m := range r.opts.Match {
		if (span{m.Key, m.End}).contains(borrow(key)) {
			return true
		}
	}
	return false
}

func (r *replay) event(rev Revision, tombstone bool, kv *mvccpb.KeyValue) (Event, error) {
	ev := Event{Type: mvccpb.Event_PUT, Kv: kv}
	if tombstone {
		ev = Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: rev.Main}}
	}
	if rev.Main <= r.v.compact || ev.creates() {
		return ev, nil
	}
	if h := lookup(r.v.tree, kv.Key); h != nil {
		if p, ok := h.before(rev.Main); ok && !p.tombstone() {
			ev.Prev = p.rev
		}
	}
	if r.opts.Prev == nil || ev.Prev == (Revision{}) {
		return ev, nil
	}
	prev, err := load(r.opts.Prev, ev.Prev)
	ev.PrevKv = prev
	return ev, err
}

// flush gives the events of one main revision and says whether to go on.
func (r *replay) flush() bool {
	if len(r.events) == 0 {
		return true
	}
	r.stopped = !r.fn(r.events[0].Kv.ModRevision, r.events)
	r.events = r.events[:0]
	return !r.stopped
}
