package store

import (
	"fmt"
	"iter"
	"math"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// view is what Readers read: what is committed, what is being committed, and
// what is not yet. It never changes.
type view struct {
	base        *base
	frozen, cur segment
	index       uint64
}

func (v *view) dropped(rev mvcc.Revision) bool {
	return v.frozen.drops.has(rev) || v.cur.drops.has(rev)
}

// pending returns the uncommitted change under rev, or nil. Most reads are of
// committed ones and are over after one comparison for each segment.
func (v *view) pending(rev mvcc.Revision) *record {
	for _, s := range [2]*segment{&v.cur, &v.frozen} {
		if len(s.recs) > 0 && !rev.Less(s.recs[0].rev) {
			return s.find(rev)
		}
	}
	return nil
}

// Reader is an immutable picture of the revision bucket as of one Apply. Any
// number of goroutines may use it at once. Close it: see the package comment
// for what an open one costs.
type Reader struct {
	v      *view
	closed atomic.Bool
}

var (
	_ mvcc.Encoded = (*Reader)(nil)
	_ mvcc.Changes = (*Reader)(nil)
)

// Reader returns a picture of all that Apply has taken. It never blocks. The
// only error is ErrClosed.
func (s *Store) Reader() (*Reader, error) {
	for {
		v := s.view.Load()
		if v == nil {
			return nil, ErrClosed
		}
		// It fails only if a newer view was published since the load.
		if v.base.acquire() {
			return &Reader{v: v}, nil
		}
	}
}

// Close ends the use of the Reader; a second call does nothing. It must not
// run at the same time as another method.
func (r *Reader) Close() {
	if !r.closed.Swap(true) {
		r.v.base.release()
	}
}

// Index returns the index of the last entry that the Reader sees.
func (r *Reader) Index() uint64 { return r.v.index }

// Generation counts the commits and installs before the Reader was opened.
// Where it is behind Store.Generation, the Reader keeps old pages alive.
func (r *Reader) Generation() uint64 { return r.v.base.generation }

// Value implements mvcc.Values. It returns ErrNoRevision, wrapped, if nothing
// is stored under rev or it was dropped before the Reader was opened.
func (r *Reader) Value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	if r.closed.Load() {
		return nil, ErrClosed
	}
	if r.v.dropped(rev) {
		return nil, fmt.Errorf("%w: %d_%d was dropped", ErrNoRevision, rev.Main, rev.Sub)
	}
	if rec := r.v.pending(rev); rec != nil {
		return rec.kv, nil
	}
	return r.v.base.value(rev)
}

// Encoded implements mvcc.Encoded, with the errors of Value. The bytes are valid until the Reader is closed.
func (r *Reader) Encoded(rev mvcc.Revision) ([]byte, error) {
	if r.closed.Load() {
		return nil, ErrClosed
	}
	if r.v.dropped(rev) {
		return nil, fmt.Errorf("%w: %d_%d was dropped", ErrNoRevision, rev.Main, rev.Sub)
	}
	if rec := r.v.pending(rev); rec != nil {
		return rec.data, nil
	}
	data := r.v.base.get(rev)
	if data == nil {
		return nil, fmt.Errorf("%w: %d_%d", ErrNoRevision, rev.Main, rev.Sub)
	}
	return data, nil
}

// Scan implements mvcc.Changes: fn gets the stored changes from from to to,
// both included, in the order of their revisions, and may keep kv.
func (r *Reader) Scan(from, to mvcc.Revision, fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error {
	return r.scan(from, to, func(rec *record, _ []byte) (err error) {
		kv := rec.kv
		if kv == nil {
			if kv, err = decodeCopy(rec.data); err != nil {
				return fmt.Errorf("%w (%d_%d: %w)", ErrCorrupt, rec.rev.Main, rec.rev.Sub, err)
			}
		}
		return fn(rec.rev, rec.tombstone, kv)
	})
}

// forgetBytes is how much of the file Visit reads before it gives the memory back.
const forgetBytes = 32 << 20

// Visit is Scan over everything for a fn that keeps nothing of kv: what a
// restore needs, with no allocation for each change. An error of fn says that
// a change is not as it was stored: it ends it, and is returned with the file
// and page and as ErrCorrupt.
func (r *Reader) Visit(fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error {
	scratch, left := &mvccpb.KeyValue{}, forgetBytes
	defer r.v.base.file.forgetPages()
	return r.scan(mvcc.Revision{}, lastRevision(), func(rec *record, key []byte) error {
		if left -= len(rec.data); left < 0 {
			r.v.base.file.forgetPages()
			left = forgetBytes
		}
		kv := rec.kv
		if kv == nil {
			kv = scratch
			kv.Key, kv.Value = nil, nil
			kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease = 0, 0, 0, 0
			if err := decodeInto(kv, rec.data); err != nil {
				return r.v.base.damaged(BucketKey, key, err)
			}
		}
		if err := fn(rec.rev, rec.tombstone, kv); err != nil {
			return r.v.base.damaged(BucketKey, key, err)
		}
		return nil
	})
}

// Stored yields keys and values of the revision bucket as bbolt would hold
// them if all were committed, in key order: what HashKV is computed over. The
// key is valid only during the step, the value until the Reader is closed;
// neither may be changed. If it meets damage, it ends early and sets *err.
func (r *Reader) Stored(err *error) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		*err = r.scan(mvcc.Revision{}, lastRevision(), func(rec *record, key []byte) error {
			if !yield(key, rec.data) {
				return errStop
			}
			return nil
		})
		if *err == errStop { //nolint:errorlint // it is returned as it is
			*err = nil
		}
	}
}

// errStop ends a scan whose reader has had enough.
const errStop = stopError("stop")

type stopError string

func (e stopError) Error() string { return string(e) }

func lastRevision() mvcc.Revision { return mvcc.Revision{Main: math.MaxInt64, Sub: math.MaxInt64} }

// scan calls fn for committed and then uncommitted changes: revisions only
// grow, so that is their order. The record is fn's only during the call; its
// kv is nil for committed ones.
func (r *Reader) scan(from, to mvcc.Revision, fn func(rec *record, key []byte) error) error {
	if r.closed.Load() {
		return ErrClosed
	}
	drops := !r.v.frozen.drops.empty() || !r.v.cur.drops.empty()
	var rec record
	err := r.v.base.scan(from, to, func(rev mvcc.Revision, tombstone bool, key, data []byte) error {
		if drops && r.v.dropped(rev) {
			return nil
		}
		rec = record{rev: rev, tombstone: tombstone, data: data}
		return fn(&rec, key)
	})
	if err != nil {
		return err
	}
	var buf [bucketKeyLen + 1]byte
	for _, s := range [2]*segment{&r.v.frozen, &r.v.cur} {
		for i := s.from(from); i < len(s.recs) && !to.Less(s.recs[i].rev); i++ {
			rec = s.recs[i]
			if drops && r.v.dropped(rec.rev) {
				continue
			}
			if err := fn(&rec, mvcc.AppendBucketKey(buf[:0], rec.rev, rec.tombstone)); err != nil {
				return err
			}
		}
	}
	return nil
}
