package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// errStalled ends a stream whose receiver takes nothing any more.
var errStalled = errors.New("the member takes no messages")

type messageStream = grpc.BidiStreamingClient[peerv1.MessageBatch, peerv1.MessageAck]

// sender writes one lane to one stream. What awaits the receiver's mark is bounded by a window: a gRPC send returns at once, so without
// that bound a slow receiver would fill this process instead of the lane.
type sender struct {
	lane    *lane
	stream  messageStream
	stall   time.Duration
	moves   atomic.Uint64 // counts what was sent and what was marked
	sending atomic.Bool
	batch   []*raftpb.Message
	bytes   prometheus.Counter // sent

	mu     sync.Mutex
	window window
}

func newSender(lane *lane, stream messageStream, stall time.Duration, bytes prometheus.Counter) *sender {
	s := &sender{lane: lane, stream: stream, stall: stall, bytes: bytes}
	s.window.sent(0) // the hello is a batch too
	return s
}

// acceptedKey is in the header that a receiver sends once it has accepted the hello.
const acceptedKey = "holdfast-peer"

// open opens a stream for a lane and returns once the receiver has accepted the hello.
func open(ctx context.Context, client peerv1.PeerClient, hello *peerv1.Hello) (messageStream, error) {
	stream, err := client.Messages(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(&peerv1.MessageBatch{Hello: hello}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	header, err := stream.Header()
	if err == nil && len(header.Get(acceptedKey)) == 0 { // refused: the reason is in the trailer
		if _, err = stream.Recv(); err == nil {
			err = errors.New("the member did not answer the hello")
		}
	}
	if err != nil {
		return nil, err
	}
	return stream, nil
}

// run carries the lane until the stream ends. It cancels the stream, whose context cancel ends, if it stalls.
func (s *sender) run(cancel context.CancelCauseFunc) error {
	ended := make(chan error, 1)
	go func() { ended <- s.readAcks() }() // ends with the stream
	var watch sync.WaitGroup
	defer watch.Wait()
	over := make(chan struct{})
	defer close(over)
	watch.Go(func() { s.watch(over, cancel) })
	for {
		if err := s.sendWaiting(); err != nil {
			if errors.Is(err, io.EOF) { // the reason comes from the receiving side
				return <-ended
			}
			return err
		}
		select {
		case err := <-ended:
			return err
		case <-s.lane.wake:
		}
	}
}

// watch cancels the stream if for the length of stall nothing moves although something should: a send waits, or marks are due. It runs
// beside the sending, which waits inside gRPC when the receiver reads nothing.
func (s *sender) watch(over <-chan struct{}, cancel context.CancelCauseFunc) {
	look := time.NewTicker(s.stall)
	defer look.Stop()
	last := s.moves.Load()
	for {
		select {
		case <-over:
			return
		case <-look.C:
		}
		moves := s.moves.Load()
		if moves == last && (s.sending.Load() || s.due()) {
			cancel(errStalled)
			return
		}
		last = moves
	}
}

func (s *sender) due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.due()
}

func (s *sender) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.room()
}

// sendWaiting sends batches while there are messages and the window has room.
func (s *sender) sendWaiting() error {
	for s.room() {
		s.batch = s.lane.take(s.batch[:0])
		if len(s.batch) == 0 {
			return nil
		}
		b := &peerv1.MessageBatch{Messages: make([][]byte, 0, len(s.batch))}
		for _, m := range s.batch {
			raw, err := proto.Marshal(m)
			if err != nil {
				return fmt.Errorf("encode a raft message: %w", err)
			}
			b.Messages = append(b.Messages, raw)
		}
		clear(s.batch)
		bytes := batchBytes(b.GetMessages())
		s.mu.Lock()
		s.window.sent(bytes)
		s.mu.Unlock()
		s.sending.Store(true)
		err := s.stream.Send(b)
		s.sending.Store(false)
		if err != nil {
			return err
		}
		s.bytes.Add(float64(bytes))
		s.moves.Add(1)
	}
	return nil
}

func (s *sender) readAcks() error {
	for {
		ack, err := s.stream.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		full := !s.window.room()
		s.window.mark(ack.GetTaken())
		s.mu.Unlock()
		s.moves.Add(1)
		if full {
			s.lane.signal()
		}
	}
}
