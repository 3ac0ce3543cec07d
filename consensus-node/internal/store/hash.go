package store

import (
	"context"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"
)

// Hash commits all that was applied before the call and returns the CRC-32C of every bucket: of the names, keys and values, in order,
// without what differs between nodes of the same state, which is the consistent index and the term. How far a physical compaction is
// does differ, as in etcd. The buckets are not all etcd's, so the hash is not etcd's either. Errors: that of ctx, ErrClosed, what
// ended the Store.
func (s *Store) Hash(ctx context.Context) (uint32, error) {
	if err := s.Flush(ctx); err != nil {
		return 0, fmt.Errorf("hash: %w", err)
	}
	r, err := s.Reader()
	if err != nil {
		return 0, fmt.Errorf("hash: %w", err)
	}
	defer r.Close() // keeps the file open
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	err = r.v.base.file.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			_, _ = sum.Write(name) // a hash takes everything
			return b.ForEach(func(k, v []byte) error {
				if string(name) == BucketMeta && (string(k) == keyConsistentIndex || string(k) == keyTerm) {
					return ctx.Err()
				}
				_, _ = sum.Write(k)
				_, _ = sum.Write(v)
				return nil
			})
		})
	})
	return sum.Sum32(), err
}
