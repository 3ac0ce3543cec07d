package store

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Image is the whole database as of one transaction, for a snapshot. Close it
// soon: until then no page that is freed can be used again.
type Image struct {
	// Index, Term and ConfState are what the image itself says.
	Index, Term uint64
	ConfState   *raftpb.ConfState
	// StorageVersion is etcd's name of the schema.
	StorageVersion string
	// Size is how many bytes WriteTo writes.
	Size int64

	base    *base
	opened  time.Time
	observe func(time.Duration)
	closed  atomic.Bool
}

var _ io.WriterTo = (*Image)(nil)

// Image commits all that was applied before the call and returns an image with
// at least that. Errors: that of ctx, ErrClosed, what ended the Store.
func (s *Store) Image(ctx context.Context) (*Image, error) {
	if err := s.Flush(ctx); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	r, err := s.Reader()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	// The Reader's reference to the base becomes the Image's. The base has read
	// its meta data in its own transaction.
	b := r.v.base
	return &Image{
		Index: b.meta.Index, Term: b.meta.Term, ConfState: cloneConfState(b.meta.ConfState),
		StorageVersion: b.meta.StorageVersion, Size: b.tx.Size(), base: b,
		opened: time.Now(), observe: s.opts.ObserveImage,
	}, nil
}

// WriteTo writes the image: a bbolt file that CreateFromImage and Install
// take. It has no checksum of its own; the sender adds one.
func (i *Image) WriteTo(w io.Writer) (int64, error) {
	if i.closed.Load() {
		return 0, ErrClosed
	}
	return i.base.tx.WriteTo(w)
}

// Close ends the use of the image; a second call does nothing. It must not run
// at the same time as WriteTo.
func (i *Image) Close() {
	if !i.closed.Swap(true) {
		i.base.release()
		if i.observe != nil {
			i.observe(time.Since(i.opened))
		}
	}
}
