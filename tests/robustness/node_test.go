package robustness

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// node is one consensus member, asked by itself, on a port that serves etcd's API for it alone: what the others answer in its
// place tells nothing of it.
type node struct {
	name string
	id   uint64
	conn *grpc.ClientConn
}

func (n *node) status(ctx context.Context) (*pb.StatusResponse, error) {
	return pb.NewMaintenanceClient(n.conn).Status(ctx, &pb.StatusRequest{})
}

func (n *node) hash(ctx context.Context, revision int64) (*pb.HashKVResponse, error) {
	return pb.NewMaintenanceClient(n.conn).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
}

// applied is the revision up to which the node has applied.
func (n *node) applied(ctx context.Context) (int64, error) {
	status, err := n.status(ctx)
	return status.GetHeader().GetRevision(), err
}

func (n *node) moveLeader(ctx context.Context, to uint64) error {
	_, err := pb.NewMaintenanceClient(n.conn).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to})
	return err
}

// list is the member list as the node has it. A standalone whose own node does not answer yet has another one answer.
func (n *node) list(ctx context.Context) ([]*pb.Member, error) {
	list, err := pb.NewClusterClient(n.conn).MemberList(ctx, &pb.MemberListRequest{})
	if err == nil && list.Header.MemberId != n.id {
		err = fmt.Errorf("%x was asked and %x answered", n.id, list.Header.MemberId)
	}
	return list.GetMembers(), err
}

func localAddress(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
