package edge

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// submit queues a write and answers it when its outcome is there.
func (s *Server) submit(ctx context.Context, call *consensusv1.Call, w work, reply reply) {
	write := propose.Write{Command: w.write, Exclusive: w.exclusive}
	span := s.startSpan(call, "holdfast.consensus/propose")
	if span != nil {
		w.write.SpanContext = encodeSpan(span)
	}
	write.Done = func(outcome propose.Outcome) {
		if span != nil {
			endSpan(span, outcome)
		}
		switch {
		case outcome.NotProposed:
			reply(call, s.refused(ctx, call, outcome.Err))
		case outcome.Err != nil:
			reply(call, s.failed(ctx, call, outcome.Err))
		case w.after != nil:
			go func() {
				if err := w.after(ctx); err != nil {
					reply(call, s.failed(ctx, call, err))
					return
				}
				reply(call, s.applied(call, outcome))
			}()
		default:
			reply(call, s.applied(call, outcome))
		}
	}
	s.cfg.Packer.Submit(write)
}

// applied encodes the response of a write that apply carried out.
func (s *Server) applied(call *consensusv1.Call, outcome propose.Outcome) *consensusv1.Answer {
	answer := s.encoded(call, outcome)
	if call.GetMethod() == consensusv1.Method_METHOD_LEASE_REVOKE {
		if view, err := s.cfg.Node.Current(); err == nil { // published before the outcome is told
			answer.LeaseEpoch = view.Leases.Cluster().GetEpoch()
			view.Release()
		}
	}
	return answer
}

func (s *Server) encoded(call *consensusv1.Call, outcome propose.Outcome) *consensusv1.Answer {
	if header := headerOf(outcome.Response); header != nil {
		header.ClusterId, header.MemberId = s.cfg.ClusterID, s.cfg.MemberID
		return s.answer(call, outcome.Response, header.GetRevision())
	}
	return s.answer(call, outcome.Response, outcome.Revision)
}

// headerOf finds the header of one of etcd's responses.
func headerOf(response proto.Message) *pb.ResponseHeader {
	if r, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		return r.GetHeader()
	}
	return nil
}

// propose queues a command of the node's own and waits for its outcome.
func (s *Server) propose(ctx context.Context, w propose.Write) (propose.Outcome, error) {
	return Await(ctx, s.cfg.Packer, w)
}

// Await submits a write and waits for its outcome; the context's end leaves the outcome open.
func Await(ctx context.Context, packer *propose.Packer, w propose.Write) (propose.Outcome, error) {
	done := make(chan propose.Outcome, 1)
	w.Done = func(outcome propose.Outcome) { done <- outcome }
	packer.Submit(w)
	select {
	case outcome := <-done:
		return outcome, outcome.Err
	case <-ctx.Done():
		return propose.Outcome{}, ctx.Err()
	}
}
