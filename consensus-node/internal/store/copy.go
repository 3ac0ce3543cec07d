package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/services/clock"
)

// copyRevisions copies what is stored above d.last. Revisions only grow, so nothing is ever added below it.
func (d *defragmentation) copyRevisions(src *bbolt.Tx, rests bool) (bytes int, err error) {
	defer recoverDamage(d.src.db.Path(), &err)()
	w := &chunkWriter{d: d, rests: rests}
	defer w.abandon()
	c := src.Bucket([]byte(BucketKey)).Cursor()
	next := mvcc.Revision{Main: d.last.Main, Sub: d.last.Sub + 1}
	for k, v := c.Seek(mvcc.AppendBucketKey(nil, next, false)); k != nil; k, v = c.Next() {
		rev, _, err := mvcc.ParseBucketKey(k)
		if err != nil {
			return 0, fmt.Errorf("%w (%w: %x)", ErrCorrupt, err, k)
		}
		if err := w.put(BucketKey, k, v); err != nil {
			return 0, err
		}
		bytes += len(k) + len(v)
		d.last = rev
	}
	return bytes, w.flush()
}

// copyRows copies all buckets but that of the revisions, which it only makes if none was copied.
func (d *defragmentation) copyRows(src *bbolt.Tx) (err error) {
	defer recoverDamage(d.src.db.Path(), &err)()
	w := &chunkWriter{d: d, rests: true}
	defer w.abandon()
	err = src.ForEach(func(name []byte, b *bbolt.Bucket) error {
		if err := w.open(string(name)); err != nil { // also if it is empty
			return err
		}
		if string(name) == BucketKey {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			if v == nil {
				return fmt.Errorf("%w (bucket %q holds a bucket)", ErrCorrupt, name)
			}
			return w.put(string(name), k, v)
		})
	})
	return errors.Join(err, w.flush())
}

// chunkWriter writes to the copy in transactions of a bounded size. Keys and values live as long as the source's transaction.
type chunkWriter struct {
	d     *defragmentation
	rests bool

	tx          *bbolt.Tx // nil between two
	name        string
	bucket      *bbolt.Bucket
	keys, bytes int
	since       time.Time

	unsynced int    // bytes
	applied  uint64 // the last entry when the last chunk ended
}

// open makes a bucket the one to write to.
func (w *chunkWriter) open(name string) (err error) {
	if w.tx == nil {
		w.since = time.Now()
		if w.tx, err = w.d.dst.db.Begin(true); err != nil {
			return err
		}
		w.name, w.bucket = "", nil
	}
	if w.bucket == nil || w.name != name {
		if w.bucket, err = w.tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
		w.name, w.bucket.FillPercent = name, fillPercent
	}
	return nil
}

func (w *chunkWriter) put(name string, key, value []byte) error {
	if err := w.open(name); err != nil {
		return err
	}
	if err := w.bucket.Put(key, value); err != nil {
		return fmt.Errorf("bucket %s: %w", name, err)
	}
	w.keys++
	w.bytes += len(key) + len(value)
	if w.keys < chunkKeys && w.bytes < chunkBytes {
		return nil
	}
	return w.flush()
}

// flush ends the transaction, rests, and says whether to go on.
func (w *chunkWriter) flush() error {
	if w.tx == nil {
		return nil
	}
	tx := w.tx
	w.unsynced += w.bytes
	w.tx, w.bucket, w.keys, w.bytes = nil, nil, 0, 0
	if err := tx.Commit(); err != nil {
		return err
	}
	if w.unsynced >= syncBytes {
		w.unsynced = 0
		if err := w.d.dst.db.Sync(); err != nil {
			return err
		}
	}
	if !w.rests {
		return nil
	}
	if err := w.rest(time.Since(w.since)); err != nil {
		return err
	}
	w.d.step("chunk")
	return w.d.store.mayInstall()
}

// rest makes way for entries, if some have come since the last chunk.
func (w *chunkWriter) rest(took time.Duration) error {
	w.d.store.mu.Lock()
	applied := w.d.store.applied
	w.d.store.mu.Unlock()
	if applied == w.applied {
		return w.d.ctx.Err()
	}
	w.applied = applied
	return clock.Pause(w.d.ctx, min(chunkRests*took, chunkRestMax))
}

func (w *chunkWriter) abandon() {
	if w.tx != nil {
		_ = w.tx.Rollback() // what it wrote is not wanted
	}
}
