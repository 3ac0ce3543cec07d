package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

type snapshotStream = grpc.ClientStreamingServer[peerv1.SnapshotChunk, peerv1.SnapshotReply]

// Snapshot implements peerv1.PeerServer. It answers after the image is installed or refused; an image that does not arrive whole ends
// with an error status and leaves nothing behind.
func (s *Server) Snapshot(stream snapshotStream) (err error) {
	chunks := receiveChunks(stream)
	first, err := s.nextChunk(stream.Context(), chunks)
	if err != nil {
		return err
	}
	if err := s.checkHello(first.GetHello()); err != nil {
		return err
	}
	from := first.GetHello().GetFrom()
	done := s.cfg.Metrics.receives.begin(from)
	defer func() {
		if done(err); err != nil {
			s.cfg.Metrics.receivedFailed.WithLabelValues(label(from)).Inc()
		}
	}()
	m, err := s.decode(from, first.GetMessage())
	if err != nil {
		return err
	}
	if m.GetType() != raftpb.MsgSnap || m.GetSnapshot().GetMetadata().GetIndex() == 0 {
		return status.Error(codes.InvalidArgument, "the first chunk names no snapshot")
	}
	ctx, received, release, err := s.reception.claim(stream.Context(), m.GetTerm())
	if err != nil {
		return err
	}
	defer release()
	began := time.Now()
	path, err := s.receive(ctx, m.GetSnapshot().GetMetadata().GetIndex(), first, chunks)
	if err != nil {
		return err
	}
	s.cfg.Metrics.imageSaved.Observe(time.Since(began).Seconds())
	received()
	return stream.SendAndClose(s.install(stream.Context(), m, path))
}

// install hands the image to the node, and removes it if the node leaves it to us.
func (s *Server) install(ctx context.Context, m *raftpb.Message, path string) *peerv1.SnapshotReply {
	err := s.node.ReceiveSnapshot(ctx, m, path)
	if err == nil {
		return &peerv1.SnapshotReply{Installed: true}
	}
	if errors.Is(err, raftnode.ErrSnapshotRefused) {
		if rerr := os.Remove(path); rerr != nil {
			s.cfg.Logger.Warn("refused snapshot not removed", "file", path, "error", rerr)
		}
	}
	return &peerv1.SnapshotReply{Reason: err.Error()}
}

// chunkOrError is one Recv.
type chunkOrError struct {
	chunk *peerv1.SnapshotChunk
	err   error
}

// receiveChunks reads the stream beside its handler, which could not leave a Recv that never returns. It ends with the handler.
func receiveChunks(stream snapshotStream) <-chan chunkOrError {
	out := make(chan chunkOrError)
	go func() {
		defer close(out)
		for {
			c, err := stream.Recv()
			select {
			case out <- chunkOrError{c, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// nextChunk waits for a chunk, until ctx ends: the image is given up then.
func (s *Server) nextChunk(ctx context.Context, chunks <-chan chunkOrError) (*peerv1.SnapshotChunk, error) {
	// Longer than the sender waits for itself, so that its reason is the one that is told.
	late := time.NewTimer(2 * s.cfg.StallTimeout)
	defer late.Stop()
	select {
	case c, ok := <-chunks:
		if !ok {
			return nil, status.Error(codes.Canceled, "the sender has left")
		}
		return c.chunk, c.err
	case <-ctx.Done():
		return nil, errSuperseded // or the stream has ended, and nobody is told
	case <-late.C:
		return nil, status.Error(codes.DeadlineExceeded, "the snapshot stalled")
	}
}

// receive writes the image to a file beside the database, durably and under the name that stands for its index.
func (s *Server) receive(ctx context.Context, index uint64, first *peerv1.SnapshotChunk, chunks <-chan chunkOrError) (path string, err error) {
	f, err := os.CreateTemp(s.cfg.Dir, raftnode.PartialPattern)
	if err != nil {
		return "", fmt.Errorf("receive a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	image := &imageFile{
		file: f, size: first.GetSize(), sum: sha256.New(), bytes: s.cfg.Metrics.receivedBytes.WithLabelValues(label(first.GetHello().GetFrom())),
	}
	err = s.copyChunks(ctx, image, first, chunks)
	if err == nil {
		began := time.Now()
		err = f.Sync()
		s.cfg.Metrics.imageSynced.Observe(time.Since(began).Seconds())
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", err
	}
	path = raftnode.IncomingImage(s.cfg.Dir, index)
	if err := os.Rename(f.Name(), path); err != nil {
		return "", err
	}
	return path, syncDir(s.cfg.Dir)
}

func (s *Server) copyChunks(ctx context.Context, image *imageFile, c *peerv1.SnapshotChunk, chunks <-chan chunkOrError) (err error) {
	for {
		last, err := image.add(c)
		if last || err != nil {
			return err
		}
		if c, err = s.nextChunk(ctx, chunks); err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", image.written, image.size, err)
		}
	}
}

// syncEveryBytes is how much of an image is written before it is synced: left to the end, one sync of a whole database would hold up
// every other on that disk for seconds.
const syncEveryBytes = 8 << 20

// imageFile checks an image while it is written.
type imageFile struct {
	file          *os.File
	size, written uint64
	unsynced      int
	crc           uint32
	sum           hash.Hash
	bytes         prometheus.Counter // received
}

// add writes one chunk and says whether it was the last.
func (f *imageFile) add(c *peerv1.SnapshotChunk) (last bool, err error) {
	f.crc = crc32.Update(f.crc, castagnoli, c.GetData())
	f.sum.Write(c.GetData())
	f.written += uint64(len(c.GetData()))
	f.bytes.Add(float64(len(c.GetData())))
	switch {
	case f.crc != c.GetCrc():
		return false, status.Errorf(codes.DataLoss, "the snapshot is damaged within its first %d bytes", f.written)
	case f.written > f.size:
		return false, status.Errorf(codes.DataLoss, "the snapshot is longer than the %d bytes announced", f.size)
	}
	if _, err := f.file.Write(c.GetData()); err != nil {
		return false, fmt.Errorf("receive a snapshot: %w", err)
	}
	if f.unsynced += len(c.GetData()); f.unsynced >= syncEveryBytes {
		if err := f.file.Sync(); err != nil {
			return false, fmt.Errorf("receive a snapshot: %w", err)
		}
		f.unsynced = 0
	}
	if len(c.GetSha256()) == 0 {
		return false, nil
	}
	switch {
	case f.written < f.size:
		return false, status.Errorf(codes.DataLoss, "the snapshot ends after %d of %d bytes", f.written, f.size)
	case !bytes.Equal(f.sum.Sum(nil), c.GetSha256()):
		return false, status.Error(codes.DataLoss, "the snapshot does not have the checksum announced")
	}
	return true, nil
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
