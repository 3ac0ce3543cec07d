package store

import (
	"fmt"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Batch is what one entry of the log changes. The Store owns all of it from
// Apply on, and shares the key-values with Readers.
type Batch struct {
	// Index is the entry's, above that of all batches before. A batch that only
	// drops, and notes in rows how far that is, may repeat the last Index:
	// physical compaction is no entry's own.
	Index uint64
	// Term is the entry's term.
	Term uint64
	// ConfState is set if the entry has changed it.
	ConfState *raftpb.ConfState
	// Writes go in the order of their revisions, above all those before.
	Writes []mvcc.Write
	// Encoded holds Encode of each write if the caller has it, or is nil.
	Encoded [][]byte
	// Drop are revisions that compaction frees, in any order.
	Drop []mvcc.Drop
	// Rows are done in their order: an entry may hold a revoke and a new grant of
	// the same lease.
	Rows []Row
}

// Row puts a key into one of etcd's buckets other than BucketKey, or into one
// of ours, which is made if it does not exist; or it deletes the key, which
// need not exist. The index, term and ConfState are no rows but part of the
// Batch.
type Row struct {
	Bucket     string
	Key, Value []byte
	Delete     bool
}

// check returns ErrBatch for what a commit would stumble over: there it would
// be too late to refuse it.
func (b *Batch) check(applied uint64, last mvcc.Revision) error {
	switch again := b.Index == applied; {
	case b.Index < applied || b.Index == 0:
		return fmt.Errorf("%w: index %d after %d", ErrBatch, b.Index, applied)
	case again && (len(b.Writes) > 0 || b.ConfState != nil):
		return fmt.Errorf("%w: index %d again, with more than drops and rows", ErrBatch, b.Index)
	case b.Encoded != nil && len(b.Encoded) != len(b.Writes):
		return fmt.Errorf("%w: %d writes, %d encoded", ErrBatch, len(b.Writes), len(b.Encoded))
	}
	for i := range b.Writes {
		rev := b.Writes[i].Rev
		if !last.Less(rev) {
			return fmt.Errorf("%w: revision %d_%d after %d_%d", ErrBatch, rev.Main, rev.Sub, last.Main, last.Sub)
		}
		if b.Writes[i].KV == nil {
			return fmt.Errorf("%w: revision %d_%d without a key-value", ErrBatch, rev.Main, rev.Sub)
		}
		last = rev
	}
	for i := range b.Rows {
		r := &b.Rows[i]
		if len(r.Key) == 0 || len(r.Key) > bbolt.MaxKeySize || !writable(r.Bucket, r.Key) {
			return fmt.Errorf("%w: key %q of bucket %q", ErrBatch, r.Key, r.Bucket)
		}
	}
	return nil
}

// encode returns the stored form of each write, in one allocation for all.
func (b *Batch) encode() [][]byte {
	if b.Encoded != nil || len(b.Writes) == 0 {
		return b.Encoded
	}
	total := 0
	for i := range b.Writes {
		total += EncodedSize(b.Writes[i].KV)
	}
	buf := make([]byte, 0, total)
	encoded := make([][]byte, len(b.Writes))
	for i := range b.Writes {
		start := len(buf)
		buf = AppendEncoded(buf, b.Writes[i].KV)
		encoded[i] = buf[start:len(buf):len(buf)]
	}
	return encoded
}
