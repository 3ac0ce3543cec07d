package store

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// base is what is committed, as of one bbolt transaction that all Readers of a
// generation share. The Store holds one reference, each Reader and Image one.
//
// A bbolt transaction is not made for several goroutines, since looking up a
// bucket caches it. Reading in a bucket that was looked up before is: it
// changes nothing but atomic counters.
type base struct {
	file       *file
	tx         *bbolt.Tx
	keys       *bbolt.Bucket
	meta       Meta
	generation uint64
	refs       atomic.Int64
	lookups    sync.Pool // of *lookup
}

// openBase begins a transaction on the file's present content.
func openBase(f *file, generation uint64) (*base, error) {
	tx, err := f.db.Begin(false)
	if err != nil {
		return nil, fmt.Errorf("begin read: %w", err)
	}
	meta, err := readMeta(tx)
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	f.acquire()
	b := &base{file: f, tx: tx, keys: tx.Bucket([]byte(BucketKey)), meta: meta, generation: generation}
	b.refs.Store(1)
	return b, nil
}

// acquire takes a reference unless the last one has gone already.
func (b *base) acquire() bool {
	for {
		n := b.refs.Load()
		if n == 0 {
			return false
		}
		if b.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (b *base) release() {
	if b.refs.Add(-1) == 0 {
		_ = b.tx.Rollback() // it only fails if done twice
		b.file.release()
	}
}

// lookup is what finding a revision needs, reused: a cursor allocates a stack
// as deep as the tree, and keys that are passed to it escape to the heap.
type lookup struct {
	cursor *bbolt.Cursor
	key    [bucketKeyLen + 1]byte
}

// bucketKeyLen is the length of a key in the revision bucket; that of a
// tombstone has one byte more and sorts right behind.
const bucketKeyLen = 17

// get returns the stored bytes of a revision, which live as long as the base.
func (b *base) get(rev mvcc.Revision) []byte {
	l, ok := b.lookups.Get().(*lookup)
	if !ok {
		l = &lookup{cursor: b.keys.Cursor()}
	}
	defer b.lookups.Put(l)
	key := mvcc.AppendBucketKey(l.key[:0], rev, false)
	if found, data := l.cursor.Seek(key); bytes.HasPrefix(found, key) {
		return data
	}
	return nil
}

// value returns a copy of what is stored under a revision: the pages it lies
// in may be written anew once the base is gone.
func (b *base) value(rev mvcc.Revision) (*mvccpb.KeyValue, error) {
	data := b.get(rev)
	if data == nil {
		return nil, fmt.Errorf("%w: %d_%d", ErrNoRevision, rev.Main, rev.Sub)
	}
	return decodeCopy(data)
}

func decodeCopy(data []byte) (*mvccpb.KeyValue, error) {
	return Decode(append(make([]byte, 0, len(data)), data...))
}

// last returns the highest stored revision, or the one below all.
func (b *base) last() (mvcc.Revision, error) {
	key, _ := b.keys.Cursor().Last()
	if key == nil {
		return mvcc.Revision{Sub: -1}, nil
	}
	rev, _, err := mvcc.ParseBucketKey(key)
	return rev, err
}

// scan calls fn for the stored changes from from to to, both included.
func (b *base) scan(from, to mvcc.Revision, fn func(rev mvcc.Revision, tombstone bool, key, data []byte) error) error {
	var buf [bucketKeyLen + 1]byte
	c := b.keys.Cursor()
	for k, v := c.Seek(mvcc.AppendBucketKey(buf[:0], from, false)); k != nil; k, v = c.Next() {
		rev, tombstone, err := mvcc.ParseBucketKey(k)
		if err != nil {
			return b.damaged(BucketKey, k, err)
		}
		if to.Less(rev) {
			return nil
		}
		if err := fn(rev, tombstone, k, v); err != nil {
			return err
		}
	}
	return nil
}
