package edge

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// reply takes the one answer to a call. It does not block.
type reply func(*consensusv1.Call, *consensusv1.Answer)

// dispatch starts the calls of one batch. Writes are queued in their order; the linearizable reads share one read index.
func (s *Server) dispatch(ctx context.Context, calls []*consensusv1.Call, answer reply) {
	var linear, local []read
	var submitted reply
	began := time.Now()
	onlooker := s.looksOn()
	for _, call := range calls {
		if onlooker && !servedByLearner(call.GetMethod()) {
			answer(call, s.elsewhere(ctx, call, 0))
			continue
		}
		if call.GetRequireLeader() && s.cfg.Raft.Status().Leader == 0 {
			answer(call, s.failed(ctx, call, rpctypes.ErrGRPCNoLeader))
			continue
		}
		work, err := s.parse(call)
		switch {
		case errors.Is(err, errFull):
			s.refuseFull(ctx, call, answer)
		case err != nil:
			answer(call, s.failed(ctx, call, err))
		case work.write != nil:
			if submitted == nil {
				submitted = s.timed(began, false, answer)
			}
			s.submit(ctx, call, work, submitted)
		case work.change != nil:
			go s.changeMembers(ctx, call, work.change, answer)
		case work.task != nil:
			go s.runTask(ctx, call, work, answer)
		case work.linear:
			linear = append(linear, read{call: call, run: work.read, long: work.long})
		default:
			local = append(local, read{call: call, run: work.read, long: work.long})
		}
	}
	if len(local) > 0 {
		go s.readLocal(ctx, local, s.timed(began, true, answer))
	}
	if len(linear) > 0 {
		go s.readLinear(ctx, linear, s.timed(began, true, answer))
	}
}

// looksOn tells whether this member serves no reads: a learner, or one that has not got as far in the log as to be a member. It would
// read from a time before its own; etcd's members serve nobody until then.
func (s *Server) looksOn() bool {
	return s.cfg.Raft.Status().Learner || !s.cfg.Node.Lists(s.cfg.MemberID)
}

// servedByLearner tells what a learner answers: what is asked of it as one member. Its state may lag without bound, so it
// serves no reads.
func servedByLearner(method consensusv1.Method) bool {
	return method == consensusv1.Method_METHOD_STATUS || method == consensusv1.Method_METHOD_HASH_KV ||
		method == consensusv1.Method_METHOD_DEFRAGMENT
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
	st := status.Convert(s.mapped(ctx, call.GetMethod().String(), err))
	return &consensusv1.Answer{Id: call.GetId(), Code: uint32(st.Code()), Message: st.Message()}
}

// mapped gives the client's error, with a line in the log for what is kept back.
func (s *Server) mapped(ctx context.Context, method string, err error) error {
	return s.failures.Map(ctx, method, waitError(err))
}

// elsewhere encodes that nothing was done with a call here, and who may do it; leader is 0 if nobody is known.
func (s *Server) elsewhere(ctx context.Context, call *consensusv1.Call, leader uint64) *consensusv1.Answer {
	answer := s.failed(ctx, call, rpctypes.ErrGRPCNotLeader)
	answer.NotProposed, answer.Leader = true, leader
	return answer
}

// refused encodes the failure of a write that did not happen and never will. It may be sent elsewhere where only this node's
// part in the cluster was in the way; a time-out or a full queue is the client's to know.
func (s *Server) refused(ctx context.Context, call *consensusv1.Call, err error) *consensusv1.Answer {
	var notLeader *raftnode.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		return s.elsewhere(ctx, call, notLeader.Leader)
	case errors.Is(err, raftnode.ErrTooManyUncommitted):
		return s.failed(ctx, call, rpctypes.ErrGRPCRequestTooManyRequests)
	case errors.Is(err, propose.ErrLost):
		return s.elsewhere(ctx, call, s.cfg.Raft.Status().Leader)
	case errors.Is(err, raftnode.ErrDropped), errors.Is(err, raftnode.ErrStopped), errors.Is(err, rpctypes.ErrGRPCStopped):
		return s.elsewhere(ctx, call, 0)
	}
	return s.failed(ctx, call, err)
}

// waitError gives the client's error for a call whose wait ended.
func waitError(err error) error {
	if errors.Is(err, raftnode.ErrStopped) || errors.Is(err, store.ErrClosed) {
		return rpctypes.ErrGRPCStopped
	}
	return failure.FromWait(err)
}
