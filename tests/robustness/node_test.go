package robustness

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// node is one consensus member, asked by itself: what the others answer in its place tells nothing of it.
type node struct {
	name string
	id   uint64
	// ask sends one request of etcd's API to this very member.
	ask func(ctx context.Context, method consensusv1.Method, request, response proto.Message) error
}

func (n *node) status(ctx context.Context) (*pb.StatusResponse, error) {
	response := &pb.StatusResponse{}
	return response, n.ask(ctx, consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{}, response)
}

func (n *node) hash(ctx context.Context, revision int64) (*pb.HashKVResponse, error) {
	response := &pb.HashKVResponse{}
	return response, n.ask(ctx, consensusv1.Method_METHOD_HASH_KV, &pb.HashKVRequest{Revision: revision}, response)
}

// applied is the revision up to which the node has applied.
func (n *node) applied(ctx context.Context) (int64, error) {
	response := &pb.RangeResponse{}
	err := n.ask(ctx, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("x"), Serializable: true}, response)
	return response.GetHeader().GetRevision(), err
}

func (n *node) moveLeader(ctx context.Context, to uint64) error {
	return n.ask(ctx, consensusv1.Method_METHOD_MOVE_LEADER, &pb.MoveLeaderRequest{TargetID: to}, &pb.MoveLeaderResponse{})
}

// onOwnPort asks a member on a port that serves etcd's API for it alone.
func onOwnPort(conn *grpc.ClientConn) func(context.Context, consensusv1.Method, proto.Message, proto.Message) error {
	full := map[consensusv1.Method]string{
		consensusv1.Method_METHOD_STATUS:      pb.Maintenance_Status_FullMethodName,
		consensusv1.Method_METHOD_HASH_KV:     pb.Maintenance_HashKV_FullMethodName,
		consensusv1.Method_METHOD_MOVE_LEADER: pb.Maintenance_MoveLeader_FullMethodName,
		consensusv1.Method_METHOD_RANGE:       pb.KV_Range_FullMethodName,
	}
	return func(ctx context.Context, method consensusv1.Method, request, response proto.Message) error {
		return conn.Invoke(ctx, full[method], request, response)
	}
}

// onPeerPort asks a member as a proxy does: a standalone's client port answers for the cluster, not for the member.
func onPeerPort(conn *grpc.ClientConn) func(context.Context, consensusv1.Method, proto.Message, proto.Message) error {
	return func(ctx context.Context, method consensusv1.Method, request, response proto.Message) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
		if err != nil {
			return err
		}
		data, err := proto.Marshal(request)
		if err != nil {
			return err
		}
		if err := stream.Send(&consensusv1.CallBatch{
			Hello: &consensusv1.Hello{Version: 1, Name: "robustness"},
			Calls: []*consensusv1.Call{{Id: 1, Method: method, Request: data}},
		}); err != nil {
			return err
		}
		for {
			batch, err := stream.Recv()
			if err != nil {
				return err
			}
			for _, answer := range batch.GetAnswers() {
				if answer.GetCode() != 0 {
					return status.Error(codes.Code(answer.GetCode()), answer.GetMessage())
				}
				return proto.Unmarshal(answer.GetResponse(), response)
			}
		}
	}
}

func localAddress(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
