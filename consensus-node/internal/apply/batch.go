package apply

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Batch is what one entry changes in the database. It belongs into one
// transaction.
type Batch struct {
	// Index and Term are those of the entry, to be stored as the consistent
	// index.
	Index, Term uint64
	// ConfState is for the caller to set after a configuration change.
	ConfState *raftpb.ConfState
	// Writes are in the order of their revisions; Encoded holds the encoded
	// key-value of each. The feed shares these bytes.
	Writes  []mvcc.Write
	Encoded [][]byte
	// Drop are revisions that compaction frees.
	Drop []mvcc.Drop
	// Rows are changes of the other buckets, to be made in this order: commands
	// of one entry may touch the same row.
	Rows []Row
}

// Row puts a row or deletes it, if it is there.
type Row struct {
	Bucket     string
	Key, Value []byte
	Delete     bool
}

func (b *Batch) put(bucket string, key, value []byte) {
	b.Rows = append(b.Rows, Row{Bucket: bucket, Key: key, Value: value})
}

func (b *Batch) remove(bucket string, key []byte) {
	b.Rows = append(b.Rows, Row{Bucket: bucket, Key: key, Delete: true})
}
