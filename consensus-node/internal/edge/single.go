package edge

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Single answers one call of a client of another member's admin address.
func (s *Server) Single(ctx context.Context, call *consensusv1.Call) (*consensusv1.Answer, error) {
	answers := make(chan *consensusv1.Answer, 1)
	s.dispatch(ctx, []*consensusv1.Call{call}, func(_ *consensusv1.Call, answer *consensusv1.Answer) { answers <- answer })
	select {
	case answer := <-answers:
		return answer, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// single answers a call here or, if only the leader may and this node does not lead, has the leader answer it, as etcd's followers do. It
// is sent on for as long as whoever refuses it is certain that nothing happened.
func (s *Server) single(ctx context.Context, call *consensusv1.Call) (*consensusv1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	answer, err := s.Single(ctx, call)
	for err == nil && answer.GetNotProposed() {
		const pause = 20 * time.Millisecond // for the next leader to be known
		leader := answer.GetLeader()
		if leader == 0 {
			leader = s.cfg.Raft.Status().Leader
		}
		switch {
		case leader == s.cfg.MemberID:
			answer, err = s.Single(ctx, call)
		case leader != 0:
			if answer, err = s.cfg.Forward(ctx, leader, call); err != nil {
				return nil, rpctypes.ErrGRPCTimeoutDueToLeaderFail // it may have arrived
			}
		}
		if err != nil || !answer.GetNotProposed() {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, rpctypes.ErrGRPCTimeout
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = rpctypes.ErrGRPCTimeout
	}
	return answer, err
}
