package node

import (
	"context"
	"iter"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// Store is the database under a node, with the promises and demands of package store. [Database] makes one of a [store.Store]; a simulation
// puts one in memory in its place.
type Store interface {
	// Apply takes what an entry changes; it is committed later.
	Apply(b store.Batch) error
	// Reader is a picture of all that Apply has taken. The caller closes it.
	Reader() (Reader, error)
	// ForEach visits a bucket's committed rows in key order.
	ForEach(bucket string, fn func(key, value []byte) error) error
	// Image opens an image of one transaction, with at least what was applied before.
	Image(ctx context.Context) (raftnode.Image, error)
	// Install puts a received image in the place of the database.
	Install(path string) error
	// Durable is the index up to which the database would survive a crash.
	Durable() uint64
}

// Reader is an immutable picture of the key space's stored changes; see [store.Reader].
type Reader interface {
	mvcc.Encoded
	mvcc.Changes
	// Visit is Scan over everything, for a fn that keeps nothing.
	Visit(fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error
	// Stored yields keys and values as the database would hold them.
	Stored(err *error) iter.Seq2[[]byte, []byte]
	// Generation counts the commits and installs before the Reader was opened.
	Generation() uint64
	Close()
}

// Database is the real store as a node's.
func Database(s *store.Store) Store { return database{s} }

type database struct{ *store.Store }

func (d database) Reader() (Reader, error) {
	r, err := d.Store.Reader()
	if err != nil {
		return nil, err // not a nil *store.Reader in the interface
	}
	return r, nil
}

func (d database) Image(ctx context.Context) (raftnode.Image, error) {
	opened, err := d.Store.Image(ctx)
	if err != nil {
		return nil, err
	}
	return image{opened}, nil
}

// image is a store's image in the terms of the raft loop.
type image struct{ *store.Image }

func (i image) Metadata() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{
		Index: new(i.Index), Term: new(i.Term), ConfState: i.ConfState,
	}
}

func (i image) Size() int64 { return i.Image.Size }

func (i image) Close() error {
	i.Image.Close()
	return nil
}
