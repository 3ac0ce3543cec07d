package edge

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// reply takes the one answer to a call. It does not block.
type reply func(*consensusv1.Answer)

// dispatch starts the calls of one batch. Writes are queued in their order; the linearizable reads share one read index.
func (s *Server) dispatch(ctx context.Context, calls []*consensusv1.Call, reply reply) {
	var linear []read
	for _, call := range calls {
		if call.GetRequireLeader() && s.cfg.Raft.Status().Leader == 0 {
			reply(s.failed(ctx, call, rpctypes.ErrGRPCNoLeader))
			continue
		}
		work, err := s.parse(call)
		switch {
		case err != nil:
			reply(s.failed(ctx, call, err))
		case work.write != nil:
			s.submit(ctx, call, work, reply)
		case work.linear:
			linear = append(linear, read{call: call, run: work.read, long: work.long})
		default:
			go s.readNow(ctx, read{call: call, run: work.read, long: work.long}, reply)
		}
	}
	if len(linear) > 0 {
		go s.readLinear(ctx, linear, reply)
	}
}

// answer encodes a response.
func (s *Server) answer(call *consensusv1.Call, response proto.Message, revision int64) *consensusv1.Answer {
	data, err := proto.Marshal(response)
	if err != nil {
		return &consensusv1.Answer{Id: call.GetId(), Code: uint32(codes.Internal), Message: "response cannot be encoded"}
	}
	return &consensusv1.Answer{Id: call.GetId(), Response: data, Revision: revision}
}

// failed encodes an error as the client will see it.
func (s *Server) failed(ctx context.Context, call *consensusv1.Call, err error) *consensusv1.Answer {
	st := status.Convert(s.failures.Map(ctx, call.GetMethod().String(), err))
	return &consensusv1.Answer{Id: call.GetId(), Code: uint32(st.Code()), Message: st.Message()}
}

// refused encodes the failure of a write that raft never took.
func (s *Server) refused(ctx context.Context, call *consensusv1.Call, err error) *consensusv1.Answer {
	var notLeader *raftnode.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		answer := s.failed(ctx, call, rpctypes.ErrGRPCNotLeader)
		answer.NotProposed, answer.Leader = true, notLeader.Leader
		return answer
	case errors.Is(err, raftnode.ErrTooManyUncommitted):
		return s.failed(ctx, call, rpctypes.ErrGRPCRequestTooManyRequests)
	case errors.Is(err, raftnode.ErrDropped), errors.Is(err, raftnode.ErrStopped), errors.Is(err, rpctypes.ErrGRPCStopped):
		answer := s.failed(ctx, call, rpctypes.ErrGRPCNotLeader)
		answer.NotProposed = true
		return answer
	}
	return s.failed(ctx, call, err)
}

// waitError gives the client's error for a read whose wait ended.
func waitError(err error) error { return failure.FromWait(err) }
