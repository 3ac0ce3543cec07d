package edge

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Member offers etcd's KV, Cluster and Maintenance services for this one member, on its admin address: what a proxy
// asks of any member, an operator can ask of this one.
type Member struct {
	pb.UnimplementedKVServer
	pb.UnimplementedClusterServer
	pb.UnimplementedMaintenanceServer
	server *Server
}

// RegisterMember registers the services.
func RegisterMember(registrar grpc.ServiceRegistrar, server *Server) {
	m := &Member{server: server}
	pb.RegisterKVServer(registrar, m)
	pb.RegisterClusterServer(registrar, m)
	pb.RegisterMaintenanceServer(registrar, m)
}

// unary carries one call through the same path as the calls of a proxy.
func unary[T any, M interface {
	*T
	proto.Message
}](ctx context.Context, m *Member, method consensusv1.Method, request proto.Message) (M, error) {
	if s := m.server; s.cfg.Raft.Status().Learner && !servedByLearner(method) {
		return nil, rpctypes.ErrGRPCNotSupportedForLearner
	}
	data, err := proto.Marshal(request)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "request cannot be encoded: %v", err)
	}
	answer, err := m.server.single(ctx, &consensusv1.Call{Method: method, Request: data})
	switch {
	case ctx.Err() != nil:
		return nil, status.FromContextError(ctx.Err()).Err()
	case err != nil:
		return nil, err
	case answer.GetCode() != 0:
		return nil, status.Error(codes.Code(answer.GetCode()), answer.GetMessage())
	}
	response := M(new(T))
	if err := proto.Unmarshal(answer.GetResponse(), response); err != nil {
		return nil, status.Errorf(codes.Internal, "response is not readable: %v", err)
	}
	return response, nil
}

// Range implements etcd's KV.
func (m *Member) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	return unary[pb.RangeResponse](ctx, m, consensusv1.Method_METHOD_RANGE, r)
}

// Put implements etcd's KV.
func (m *Member) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	return unary[pb.PutResponse](ctx, m, consensusv1.Method_METHOD_PUT, r)
}

// DeleteRange implements etcd's KV.
func (m *Member) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	return unary[pb.DeleteRangeResponse](ctx, m, consensusv1.Method_METHOD_DELETE_RANGE, r)
}

// Txn implements etcd's KV.
func (m *Member) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	return unary[pb.TxnResponse](ctx, m, consensusv1.Method_METHOD_TXN, r)
}

// Compact implements etcd's KV.
func (m *Member) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	return unary[pb.CompactionResponse](ctx, m, consensusv1.Method_METHOD_COMPACT, r)
}

// MemberList implements etcd's Cluster.
func (m *Member) MemberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	return unary[pb.MemberListResponse](ctx, m, consensusv1.Method_METHOD_MEMBER_LIST, r)
}

// MemberAdd implements etcd's Cluster.
func (m *Member) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return unary[pb.MemberAddResponse](ctx, m, consensusv1.Method_METHOD_MEMBER_ADD, r)
}

// MemberRemove implements etcd's Cluster.
func (m *Member) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return unary[pb.MemberRemoveResponse](ctx, m, consensusv1.Method_METHOD_MEMBER_REMOVE, r)
}

// MemberUpdate implements etcd's Cluster.
func (m *Member) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return unary[pb.MemberUpdateResponse](ctx, m, consensusv1.Method_METHOD_MEMBER_UPDATE, r)
}

// MemberPromote implements etcd's Cluster.
func (m *Member) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return unary[pb.MemberPromoteResponse](ctx, m, consensusv1.Method_METHOD_MEMBER_PROMOTE, r)
}

// Status implements etcd's Maintenance.
func (m *Member) Status(ctx context.Context, r *pb.StatusRequest) (*pb.StatusResponse, error) {
	return unary[pb.StatusResponse](ctx, m, consensusv1.Method_METHOD_STATUS, r)
}

// Alarm implements etcd's Maintenance.
func (m *Member) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	return unary[pb.AlarmResponse](ctx, m, consensusv1.Method_METHOD_ALARM, r)
}

// HashKV implements etcd's Maintenance.
func (m *Member) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	return unary[pb.HashKVResponse](ctx, m, consensusv1.Method_METHOD_HASH_KV, r)
}

// MoveLeader implements etcd's Maintenance.
func (m *Member) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	return unary[pb.MoveLeaderResponse](ctx, m, consensusv1.Method_METHOD_MOVE_LEADER, r)
}

// RangeStream implements etcd's KV.
func (m *Member) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	return streamed(stream, m, consensusv1.Method_METHOD_RANGE_STREAM, r)
}

// Snapshot implements etcd's Maintenance. A learner serves it too, as etcd's does.
func (m *Member) Snapshot(r *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	return streamed(stream, m, consensusv1.Method_METHOD_SNAPSHOT, r)
}

// streamed carries one call with a streamed answer through the same path as the calls of a proxy.
func streamed[T any](stream grpc.ServerStreamingServer[T], m *Member, method consensusv1.Method, request proto.Message) error {
	data, err := proto.Marshal(request)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "request cannot be encoded: %v", err)
	}
	call := &consensusv1.Call{Method: method, Request: data}
	return m.server.stream(stream.Context(), call, func(message proto.Message, _ int64) error { return stream.SendMsg(message) })
}

// Defragment implements etcd's Maintenance.
func (m *Member) Defragment(ctx context.Context, r *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	return unary[pb.DefragmentResponse](ctx, m, consensusv1.Method_METHOD_DEFRAGMENT, r)
}

// Hash implements etcd's Maintenance.
func (m *Member) Hash(ctx context.Context, r *pb.HashRequest) (*pb.HashResponse, error) {
	return unary[pb.HashResponse](ctx, m, consensusv1.Method_METHOD_HASH, r)
}

// Downgrade implements etcd's Maintenance.
func (m *Member) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	return unary[pb.DowngradeResponse](ctx, m, consensusv1.Method_METHOD_DOWNGRADE, r)
}
