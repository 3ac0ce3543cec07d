package edge

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/version"
)

func (s *Server) parseMaintenance(call *consensusv1.Call) (work, error) {
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_FENCE:
		return work{read: s.fenceRead().encoded(), linear: true}, nil
	case consensusv1.Method_METHOD_MEMBER_LIST:
		request, err := decode[pb.MemberListRequest](call)
		if err != nil {
			return work{}, err
		}
		return work{read: s.membersRead().encoded(), linear: request.GetLinearizable()}, nil
	case consensusv1.Method_METHOD_STATUS:
		return work{read: s.statusRead().encoded()}, nil
	case consensusv1.Method_METHOD_HASH_KV:
		request, err := decode[pb.HashKVRequest](call)
		if err != nil {
			return work{}, err
		}
		return work{read: s.hashRead(request).encoded(), long: true}, nil
	case consensusv1.Method_METHOD_ALARM:
		return s.parseAlarm(call)
	case consensusv1.Method_METHOD_MOVE_LEADER:
		request, err := decode[pb.MoveLeaderRequest](call)
		if err != nil {
			return work{}, err
		}
		return work{read: s.moveLeader(request).encoded(), long: true}, nil
	default:
		return work{}, fmt.Errorf("%s is no maintenance call", call.GetMethod())
	}
}

func (s *Server) fenceRead() messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		revision := view.KV.Revision()
		return &consensusv1.FenceResponse{
			ClusterId: s.cfg.ClusterID, MemberId: s.cfg.MemberID, Term: s.term(),
			Revision: revision, CompactRevision: max(0, view.KV.CompactRevision()),
		}, revision, nil
	}
}

// membersRead answers with a header without revision, as etcd does for all calls about members.
func (s *Server) membersRead() messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		return &pb.MemberListResponse{Header: s.header(0, s.term()), Members: view.Members.Proto()}, 0, nil
	}
}

func (s *Server) statusRead() messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		raft := s.cfg.Raft.Status()
		revision := view.KV.Revision()
		response := &pb.StatusResponse{
			Header:           s.header(revision, raft.Term),
			Version:          version.API,
			DbSize:           s.cfg.Store.Size(),
			DbSizeInUse:      s.cfg.Store.SizeInUse(),
			DbSizeQuota:      s.cfg.Space.QuotaBytes,
			Leader:           raft.Leader,
			RaftIndex:        raft.Commit,
			RaftTerm:         raft.Term,
			RaftAppliedIndex: view.Index,
			IsLearner:        raft.Learner,
			StorageVersion:   version.API,
			DowngradeInfo:    &pb.DowngradeInfo{},
		}
		if raft.Leader == 0 {
			response.Errors = append(response.Errors, rpctypes.ErrNoLeader.Error())
		}
		for _, alarm := range view.Alarms.Get(pb.AlarmType_NONE) {
			response.Errors = append(response.Errors, alarm.String())
		}
		return response, revision, nil
	}
}

func (s *Server) hashRead(request *pb.HashKVRequest) messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		began := time.Now()
		hash, err := view.Hash(request.GetRevision())
		if err != nil {
			return nil, 0, err
		}
		s.cfg.Observer.Hashed(true, time.Since(began))
		revision := view.KV.Revision()
		return &pb.HashKVResponse{
			Header: s.header(revision, s.term()), Hash: hash.Hash, CompactRevision: hash.CompactRevision, HashRevision: hash.Revision,
		}, revision, nil
	}
}

func (s *Server) parseAlarm(call *consensusv1.Call) (work, error) {
	request, err := decode[pb.AlarmRequest](call)
	if err != nil {
		return work{}, err
	}
	if s.cfg.Limits.tooLarge(call.GetRequest()) {
		return work{}, rpctypes.ErrGRPCRequestTooLarge
	}
	if request.GetAction() == pb.AlarmRequest_GET { // etcd asks its log; nothing needs an entry for it
		return work{read: s.alarmsRead(request).encoded(), linear: true}, nil
	}
	return work{write: &journalv1.Command{Command: &journalv1.Command_Alarm{Alarm: call.GetRequest()}}}, alarmShape(request)
}

func (s *Server) alarmsRead(request *pb.AlarmRequest) messageFunc {
	return func(_ context.Context, view *node.View) (proto.Message, int64, error) {
		revision := view.KV.Revision()
		return &pb.AlarmResponse{Header: s.header(revision, s.term()), Alarms: view.Alarms.Get(request.GetAlarm())}, revision, nil
	}
}

// alarmShape refuses actions that etcd does not know, which apply would have to guess about.
func alarmShape(request *pb.AlarmRequest) error {
	if _, known := pb.AlarmRequest_AlarmAction_name[int32(request.GetAction())]; !known {
		return status.Errorf(codes.InvalidArgument, "unknown alarm action %d", request.GetAction())
	}
	return nil
}

// errTransferTimeout is etcd's text, under the code that etcd gives to what its table of errors does not hold.
var errTransferTimeout = status.Error(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")

func (s *Server) moveLeader(request *pb.MoveLeaderRequest) messageFunc {
	return func(ctx context.Context, view *node.View) (proto.Message, int64, error) {
		if raft := s.cfg.Raft.Status(); raft.Leader != raft.ID {
			return nil, 0, rpctypes.ErrGRPCNotLeader
		}
		target, ok := view.Members.Get(request.GetTargetID())
		if !ok || target.Learner {
			return nil, 0, rpctypes.ErrGRPCBadLeaderTransferee
		}
		bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
		defer cancel()
		if err := s.cfg.Raft.TransferLeader(bounded, target.ID); err != nil {
			return nil, 0, errTransferTimeout
		}
		return &pb.MoveLeaderResponse{}, 0, nil // without a header, as etcd's
	}
}
