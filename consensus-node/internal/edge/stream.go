package edge

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// sendPart hands one message of a streamed answer on; revision is that of its header, 0 without one. It waits for its reader, so
// whoever calls it holds no view meanwhile. The message is the reader's from then on.
type sendPart func(message proto.Message, revision int64) error

// Stream serves one call whose answer is a stream.
func (s *Server) Stream(request *consensusv1.StreamCall, stream consensusv1.Consensus_StreamServer) error {
	if want := request.GetClusterId(); want != 0 && want != s.cfg.ClusterID {
		return status.Errorf(codes.FailedPrecondition, "this is cluster %x, not %x", s.cfg.ClusterID, want)
	}
	return s.stream(stream.Context(), request.GetCall(), func(message proto.Message, revision int64) error {
		data, err := (proto.MarshalOptions{}).MarshalAppend(s.cfg.Buffers.Take(proto.Size(message)), message)
		if err != nil {
			return status.Error(codes.Internal, "response cannot be encoded")
		}
		return stream.Send(&consensusv1.StreamPart{Response: data, Revision: revision})
	})
}

// stream carries out one call; its error is the client's.
func (s *Server) stream(ctx context.Context, call *consensusv1.Call, send sendPart) error {
	span := s.startSpan(call, "holdfast.consensus/stream")
	if span != nil {
		defer span.End()
	}
	var err error
	switch {
	case call.GetRequireLeader() && s.cfg.Raft.Status().Leader == 0:
		err = rpctypes.ErrGRPCNoLeader
	case call.GetMethod() == consensusv1.Method_METHOD_SNAPSHOT:
		err = s.sendSnapshot(ctx, call, send)
	case call.GetMethod() == consensusv1.Method_METHOD_RANGE_STREAM:
		err = s.sendRange(ctx, call, send)
	default:
		err = status.Errorf(codes.Unimplemented, "%s is no call with a streamed answer", call.GetMethod())
	}
	return s.mapped(ctx, call.GetMethod().String(), err)
}

// viewFor waits for the view that a streamed answer begins with: a linearizable one, or one of at least the revision that the
// caller has seen. The caller of viewFor releases it.
func (s *Server) viewFor(ctx context.Context, call *consensusv1.Call, linear bool) (*node.View, error) {
	bounded, cancel := context.WithTimeout(ctx, s.patience(call))
	defer cancel()
	if linear {
		return s.cfg.Node.Linearize(bounded)
	}
	return s.cfg.Node.AtRevision(bounded, call.GetMinRevision())
}
