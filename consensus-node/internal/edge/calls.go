package edge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/credit"
)

// ProtocolVersion is the version of the Calls protocol that this node speaks.
const ProtocolVersion = 1

// answerLimits bound what waits for one proxy: past them its stream ends, and it finds out what became of its calls by
// asking again.
var answerLimits = credit.Limits{QueueItems: 1 << 17, QueueBytes: 256 << 20, BatchItems: 4096, BatchBytes: 1 << 20}

// Calls serves one proxy.
func (s *Server) Calls(stream consensusv1.Consensus_CallsServer) error {
	first, err := stream.Recv()
	if err != nil {
		return endOfStream(err)
	}
	if err := s.checkHello(first.GetHello()); err != nil {
		return err
	}
	hello := &consensusv1.Hello{Version: ProtocolVersion, ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID}
	if err := stream.Send(&consensusv1.AnswerBatch{Hello: hello}); err != nil {
		return err
	}
	lane := credit.NewLane(answerLimits, func(a *consensusv1.Answer) int { return len(a.GetResponse()) + len(a.GetMessage()) + 32 })
	defer lane.Close() // answers that come later reach nobody
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	// The first of the two that ends, or an answer that found no room, ends the stream. Nobody waits for the receiver: it sits
	// in Recv, which returns when the handler has.
	ended, overflow := make(chan error, 2), make(chan error, 1)
	go func() { ended <- sendAnswers(ctx, stream, lane) }()
	c := &callStream{server: s, stream: stream, lane: lane, overflow: overflow, flight: newFlight(flightCallsMax, flightBytesMax)}
	go func() { ended <- c.receive(ctx, first) }()
	select {
	case err := <-ended:
		return endOfStream(err)
	case err := <-overflow:
		return err
	}
}

func (s *Server) checkHello(hello *consensusv1.Hello) error {
	switch {
	case hello == nil:
		return status.Error(codes.InvalidArgument, "the first message of a Calls stream carries no hello")
	case hello.GetVersion() != ProtocolVersion:
		return status.Errorf(codes.FailedPrecondition, "protocol version %d is not spoken here, %d is", hello.GetVersion(), ProtocolVersion)
	case hello.GetClusterId() != 0 && hello.GetClusterId() != s.cfg.ClusterID:
		return status.Errorf(codes.FailedPrecondition, "this is cluster %x, not %x", s.cfg.ClusterID, hello.GetClusterId())
	}
	return nil
}

func sendAnswers(ctx context.Context, stream consensusv1.Consensus_CallsServer, lane *credit.Lane[*consensusv1.Answer]) error {
	for {
		batch, err := lane.Next(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&consensusv1.AnswerBatch{Taken: batch.Taken, Answers: batch.Items}); err != nil {
			return err
		}
	}
}

// callStream is one proxy's stream.
type callStream struct {
	server   *Server
	stream   consensusv1.Consensus_CallsServer
	lane     *credit.Lane[*consensusv1.Answer]
	flight   *flight
	overflow chan<- error // capacity 1
}

// receive takes batches until the stream ends. While too many calls are unanswered it takes no further one, and the proxy's
// credit runs out; every call is answered within a bound of time, so that does not last.
func (c *callStream) receive(ctx context.Context, batch *consensusv1.CallBatch) error {
	for {
		c.lane.Taken(batch.GetTaken())
		if calls := batch.GetCalls(); len(calls) > 0 {
			bytes := 0
			for _, call := range calls {
				bytes += len(call.GetRequest())
			}
			if err := c.flight.begin(ctx, len(calls), bytes); err != nil {
				return err
			}
			c.lane.Received()
			c.server.dispatch(ctx, calls, c.answer)
		}
		var err error
		if batch, err = c.stream.Recv(); err != nil {
			return fmt.Errorf("receiving calls: %w", err)
		}
	}
}

// answer is the stream's reply. An answer without room would be lost, so the stream ends.
func (c *callStream) answer(call *consensusv1.Call, answer *consensusv1.Answer) {
	c.flight.end(len(call.GetRequest()))
	if err := c.lane.Put(answer); errors.Is(err, credit.ErrFull) {
		select {
		case c.overflow <- status.Error(codes.ResourceExhausted, "too many answers wait for this proxy"):
		default: // it ends already
		}
	}
}

// endOfStream turns the normal ends of a stream into none.
func endOfStream(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
