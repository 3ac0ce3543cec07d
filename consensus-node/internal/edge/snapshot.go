package edge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/clock"
)

// snapshotChunkBytes is how much of the database goes into one message, as in etcd.
const snapshotChunkBytes = 32 << 10

// While entries come the sender rests after each restEveryBytes for restTimes as long as these took, but no longer than restMax: reading,
// hashing and sending at full speed would take the processor from those entries.
const (
	restEveryBytes = 256 << 10
	restTimes      = 3
	restMax        = 12 * time.Millisecond
)

// sendSnapshot streams the database as of one transaction, and then its SHA-256. What is written meanwhile is not in it and
// does not wait for it. It needs the memory of one chunk, and the disk space of what is rewritten while it lasts. What is
// Holdfast's own stays in: etcd and etcdutl pass over buckets that they do not know.
func (s *Server) sendSnapshot(ctx context.Context, call *consensusv1.Call, send sendPart) error {
	if _, err := decode[pb.SnapshotRequest](call); err != nil {
		return err
	}
	view, err := s.viewFor(ctx, call, false)
	if err != nil {
		return err
	}
	view.Release()
	image, err := s.cfg.Store.Image(ctx)
	if err != nil {
		return err
	}
	defer image.Close()
	s.cfg.Logger.InfoContext(ctx, "sending database snapshot", "total_bytes", image.Size, "index", image.Index)
	w := &snapshotWriter{
		send: send, hash: sha256.New(), left: image.Size, version: image.StorageVersion,
		applied: s.appliedIndex, index: s.appliedIndex(), pause: func(d time.Duration) error { return clock.Pause(ctx, d) }, since: time.Now(),
	}
	if _, err := image.WriteTo(w); err != nil {
		return err
	}
	if err := w.finish(); err != nil {
		return err
	}
	s.cfg.Logger.InfoContext(ctx, "sent database snapshot", "total_bytes", image.Size, "index", image.Index)
	return nil
}

// snapshotWriter cuts the image into messages.
type snapshotWriter struct {
	send    sendPart
	hash    hash.Hash
	chunk   []byte
	left    int64 // of the image, not sent yet
	version string

	// applied is the index of the last applied entry, pause waits.
	applied func() uint64
	pause   func(time.Duration) error
	unrest  int       // bytes since the last rest
	since   time.Time // that it was over
	index   uint64    // then
}

var _ io.Writer = (*snapshotWriter)(nil)

// Write sends whole chunks as they fill.
func (w *snapshotWriter) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		if w.chunk == nil { // the last one belongs to its reader
			w.chunk = make([]byte, 0, snapshotChunkBytes)
		}
		n := min(len(rest), snapshotChunkBytes-len(w.chunk))
		w.chunk, rest = append(w.chunk, rest[:n]...), rest[n:]
		if len(w.chunk) == snapshotChunkBytes {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(data), nil
}

func (w *snapshotWriter) flush() error {
	_, _ = w.hash.Write(w.chunk) // it cannot fail
	w.left -= int64(len(w.chunk))
	if w.left < 0 {
		return fmt.Errorf("the image of the database is %d bytes longer than it said", -w.left)
	}
	chunk := w.chunk
	w.chunk = nil
	if err := w.send(&pb.SnapshotResponse{RemainingBytes: uint64(w.left), Blob: chunk, Version: w.version}, 0); err != nil {
		return err
	}
	if w.unrest += len(chunk); w.unrest < restEveryBytes {
		return nil
	}
	return w.rest()
}

// rest makes way for entries, if some have come since the last rest.
func (w *snapshotWriter) rest() error {
	index := w.applied()
	if index != w.index {
		if err := w.pause(min(restTimes*time.Since(w.since), restMax)); err != nil {
			return err
		}
	}
	w.unrest, w.index, w.since = 0, index, time.Now()
	return nil
}

// appliedIndex is that of the last entry that is applied here, 0 when the node is closed.
func (s *Server) appliedIndex() uint64 {
	view, err := s.cfg.Node.Current()
	if err != nil {
		return 0
	}
	defer view.Release()
	return view.Index
}

// finish sends the rest and the hash.
func (w *snapshotWriter) finish() error {
	if len(w.chunk) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	if w.left != 0 {
		return fmt.Errorf("the image of the database is %d bytes shorter than it said", w.left)
	}
	return w.send(&pb.SnapshotResponse{Blob: w.hash.Sum(nil), Version: w.version}, 0)
}
