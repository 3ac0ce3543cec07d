package edge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
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
	group, ctx := errgroup.WithContext(stream.Context())
	group.Go(func() error { return sendAnswers(ctx, stream, lane) })
	group.Go(func() error { return s.receiveCalls(ctx, stream, lane, first) })
	return endOfStream(group.Wait())
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

func (s *Server) receiveCalls(
	ctx context.Context, stream consensusv1.Consensus_CallsServer, lane *credit.Lane[*consensusv1.Answer], batch *consensusv1.CallBatch,
) error {
	overflow := make(chan error, 1)
	reply := func(answer *consensusv1.Answer) {
		if err := lane.Put(answer); err != nil {
			select {
			case overflow <- status.Error(codes.ResourceExhausted, "too many answers wait for this proxy"):
			default:
			}
		}
	}
	for {
		select {
		case err := <-overflow:
			return err
		default:
		}
		lane.Taken(batch.GetTaken())
		if len(batch.GetCalls()) > 0 {
			lane.Received()
			s.dispatch(ctx, batch.GetCalls(), reply)
		}
		var err error
		if batch, err = stream.Recv(); err != nil {
			return fmt.Errorf("receiving calls: %w", err)
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
