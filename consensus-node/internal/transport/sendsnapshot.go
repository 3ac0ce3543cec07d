package transport

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// SendSnapshot implements raftnode.Transport. It uses a connection of its own, so that messages do not queue behind the image.
func (t *Transport) SendSnapshot(ctx context.Context, m *raftpb.Message, img raftnode.Image) (err error) {
	p, err := t.peer(m.GetTo())
	if err != nil {
		return err
	}
	done := t.cfg.Metrics.sends.begin(p.id)
	defer func() {
		if done(err); err != nil {
			p.counts.sentFailures.Inc()
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	//nolint:contextcheck // two contexts end this: the caller's and the transport's
	defer context.AfterFunc(t.ctx, func() { cancel(errors.New("the transport is closed")) })()
	to := p.nextTarget()
	conn, err := t.cfg.dial(to)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is left to do with it
	client := peerv1.NewPeerClient(conn)
	if err := p.identify(ctx, client, to); err != nil {
		return fmt.Errorf("send a snapshot to %s: %w", to.url, err)
	}
	stream, err := client.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("send a snapshot to %s: %w", to.url, err)
	}
	stalled := time.AfterFunc(t.cfg.StallTimeout, func() { cancel(errStalled) })
	defer stalled.Stop()
	if err := t.stream(ctx, stream, m, img, stalled, p.counts.sentBytes); err != nil {
		return fmt.Errorf("send a snapshot to %s: %w", to.url, reason(ctx, err))
	}
	return nil
}

// reason prefers why this side gave up to the cancellation that it shows as.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func (t *Transport) stream(ctx context.Context, stream grpc.ClientStreamingClient[peerv1.SnapshotChunk, peerv1.SnapshotReply],
	m *raftpb.Message, img raftnode.Image, stalled *time.Timer, sent prometheus.Counter,
) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	w := &chunkWriter{
		ctx: ctx, rate: t.images, sum: sha256.New(),
		next: &peerv1.SnapshotChunk{Hello: t.cfg.hello(m.GetTo()), Message: raw, Size: uint64(img.Size())},
		buf:  make([]byte, 0, chunkBytes),
		send: func(c *peerv1.SnapshotChunk) error {
			stalled.Reset(t.cfg.StallTimeout)
			sent.Add(float64(len(c.GetData())))
			return stream.Send(c)
		},
	}
	_, err = img.WriteTo(w)
	if err == nil {
		err = w.finish()
	}
	if err != nil && !errors.Is(err, io.EOF) { // EOF: the receiver has ended the stream and says why
		return err
	}
	stalled.Reset(t.cfg.InstallTimeout)
	reply, err := stream.CloseAndRecv()
	if err != nil {
		return err
	}
	if !reply.GetInstalled() {
		return fmt.Errorf("refused: %s", reply.GetReason())
	}
	return nil
}

// chunkWriter cuts an image into chunks.
type chunkWriter struct {
	ctx  context.Context
	send func(*peerv1.SnapshotChunk) error
	next *peerv1.SnapshotChunk // what the next chunk carries beside data
	buf  []byte
	crc  uint32
	sum  hash.Hash
	rate *bucket
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Write implements io.Writer.
func (w *chunkWriter) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		n := min(len(b), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, b[:n]...)
		b, written = b[n:], written+n
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (w *chunkWriter) flush() error {
	if err := w.rate.wait(w.ctx, len(w.buf)); err != nil {
		return err
	}
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	w.sum.Write(w.buf)
	c := w.next
	c.Data, c.Crc = w.buf, w.crc
	w.next = &peerv1.SnapshotChunk{}
	err := w.send(c) // encodes: buf may be used again
	w.buf = w.buf[:0]
	return err
}

// finish sends what is left, with the checksum of all.
func (w *chunkWriter) finish() error {
	if err := w.rate.wait(w.ctx, len(w.buf)); err != nil {
		return err
	}
	w.sum.Write(w.buf)
	w.crc = crc32.Update(w.crc, castagnoli, w.buf)
	c := w.next
	c.Data, c.Crc, c.Sha256 = w.buf, w.crc, w.sum.Sum(nil)
	return w.send(c)
}
