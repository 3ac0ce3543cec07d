package edge

import (
	"context"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/quota"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// readFunc answers from a view: with the encoded response, and the revision that it tells.
type readFunc func(ctx context.Context, view *node.View) ([]byte, int64, error)

// messageFunc is one whose response is not encoded yet.
type messageFunc func(ctx context.Context, view *node.View) (proto.Message, int64, error)

func (f messageFunc) encoded() readFunc {
	return func(ctx context.Context, view *node.View) ([]byte, int64, error) {
		response, revision, err := f(ctx, view)
		if err != nil {
			return nil, revision, err
		}
		data, err := proto.Marshal(response)
		return data, revision, err
	}
}

// work is what a call comes down to: a write, or a read that is linearizable or not.
type work struct {
	write     *journalv1.Command
	exclusive bool
	// after runs once the write is applied and before it is answered; nil for most.
	after func(ctx context.Context) error

	read   readFunc
	linear bool
	// task is work on this member that needs no view and may take any time.
	task func(ctx context.Context) (proto.Message, error)
	// long reads may touch many keys and get a goroutine of their own.
	long bool

	// change is a change of the member list, which has a path of its own.
	change *memberChange
}

// parse checks a call's shape as etcd's API layer does, in its order, and fixes what replicated apply must not decide.
func (s *Server) parse(call *consensusv1.Call) (work, error) {
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_RANGE:
		return s.parseRange(call)
	case consensusv1.Method_METHOD_TXN:
		return s.parseTxn(call)
	case consensusv1.Method_METHOD_PUT, consensusv1.Method_METHOD_DELETE_RANGE, consensusv1.Method_METHOD_COMPACT:
		return s.parseWrite(call)
	case consensusv1.Method_METHOD_LEASE_GRANT, consensusv1.Method_METHOD_LEASE_REVOKE,
		consensusv1.Method_METHOD_LEASE_TIME_TO_LIVE, consensusv1.Method_METHOD_LEASE_LEASES:
		return s.parseLease(call)
	case consensusv1.Method_METHOD_MEMBER_LIST, consensusv1.Method_METHOD_STATUS, consensusv1.Method_METHOD_HASH_KV,
		consensusv1.Method_METHOD_ALARM, consensusv1.Method_METHOD_MOVE_LEADER, consensusv1.Method_METHOD_FENCE:
		return s.parseMaintenance(call)
	case consensusv1.Method_METHOD_MEMBER_ADD, consensusv1.Method_METHOD_MEMBER_REMOVE,
		consensusv1.Method_METHOD_MEMBER_UPDATE, consensusv1.Method_METHOD_MEMBER_PROMOTE:
		return s.parseMember(call)
	case consensusv1.Method_METHOD_DEFRAGMENT, consensusv1.Method_METHOD_HASH, consensusv1.Method_METHOD_DOWNGRADE:
		return s.parseUpkeep(call)
	default:
		return work{}, status.Errorf(codes.Unimplemented, "%s is not implemented yet", call.GetMethod())
	}
}

// decode reads a call's request; what is not readable is the client's fault.
func decode[T any, M interface {
	*T
	proto.Message
}](call *consensusv1.Call) (M, error) {
	request := M(new(T))
	if err := proto.Unmarshal(call.GetRequest(), request); err != nil {
		return nil, unreadable(err)
	}
	return request, nil
}

func unreadable(err error) error {
	return status.Errorf(codes.InvalidArgument, "request is not readable: %v", err)
}

func (s *Server) parseRange(call *consensusv1.Call) (work, error) {
	request, err := decode[pb.RangeRequest](call)
	if err != nil {
		return work{}, err
	}
	if err := mvcc.CheckRange(request); err != nil {
		return work{}, err
	}
	return work{read: s.rangeRead(request), linear: !request.GetSerializable(), long: isLong(request)}, nil
}

// isLong tells whether a range may touch many keys.
func isLong(request *pb.RangeRequest) bool {
	const keysMax = 100
	return len(request.GetRangeEnd()) > 0 && (request.GetLimit() <= 0 || request.GetLimit() > keysMax)
}

func (s *Server) parseTxn(call *consensusv1.Call) (work, error) {
	request, err := decode[pb.TxnRequest](call)
	if err != nil {
		return work{}, err
	}
	cost := quota.Txn(request)
	if err := s.checkSpace(cost); err != nil {
		return work{}, err
	}
	if err := mvcc.CheckTxn(request, s.cfg.Limits.TxnOpsMax); err != nil {
		return work{}, err
	}
	if mvcc.IsTxnReadOnly(request) {
		return work{read: s.txnRead(request).encoded(), linear: !mvcc.IsTxnSerializable(request), long: true}, nil
	}
	const opsPackedMax = 32 // a longer transaction goes alone into its entry
	exclusive := len(request.GetSuccess())+len(request.GetFailure()) > opsPackedMax
	return s.writing(call, &journalv1.Command{Command: &journalv1.Command_Txn{Txn: call.GetRequest()}}, exclusive, cost)
}

func (s *Server) parseWrite(call *consensusv1.Call) (work, error) {
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_PUT:
		request, err := apply.DecodePut(call.GetRequest())
		if err != nil {
			return work{}, unreadable(err)
		}
		cost := quota.Put(request)
		if err := s.checkSpace(cost); err != nil {
			return work{}, err
		}
		if err := mvcc.CheckPut(request); err != nil {
			return work{}, err
		}
		return s.writing(call, &journalv1.Command{Command: &journalv1.Command_Put{Put: call.GetRequest()}}, false, cost)
	case consensusv1.Method_METHOD_DELETE_RANGE:
		request, err := decode[pb.DeleteRangeRequest](call)
		if err != nil {
			return work{}, err
		}
		if err := mvcc.CheckDelete(request); err != nil {
			return work{}, err
		}
		// A range may hold any number of keys, so it goes alone into its entry.
		exclusive := len(request.GetRangeEnd()) > 0
		return s.writing(call, &journalv1.Command{Command: &journalv1.Command_DeleteRange{DeleteRange: call.GetRequest()}}, exclusive, 0)
	case consensusv1.Method_METHOD_COMPACT:
		request, err := decode[pb.CompactionRequest](call)
		if err != nil {
			return work{}, err
		}
		w, err := s.writing(call, &journalv1.Command{Command: &journalv1.Command_Compact{Compact: call.GetRequest()}}, true, 0)
		if err == nil && request.GetPhysical() {
			w.after = func(ctx context.Context) error { return s.compacted(ctx, request.GetRevision()) }
		}
		return w, err
	default:
		return work{}, fmt.Errorf("%s is no write", call.GetMethod())
	}
}

// writing makes a write of a command after the checks that all writes share. cost is what it may add to the database.
func (s *Server) writing(call *consensusv1.Call, command *journalv1.Command, exclusive bool, cost int64) (work, error) {
	if s.cfg.Limits.tooLarge(call.GetRequest()) {
		return work{}, rpctypes.ErrGRPCRequestTooLarge
	}
	if err := s.alarmed(call.GetMethod(), cost); err != nil {
		return work{}, err
	}
	if s.cfg.Store.Pressure() >= 1 {
		return work{}, rpctypes.ErrGRPCRequestTooManyRequests
	}
	return work{write: command, exclusive: exclusive}, nil
}

func (s *Server) parseLease(call *consensusv1.Call) (work, error) {
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_LEASE_GRANT:
		return s.parseGrant(call)
	case consensusv1.Method_METHOD_LEASE_REVOKE:
		return s.parseRevoke(call)
	case consensusv1.Method_METHOD_LEASE_TIME_TO_LIVE:
		request, err := decode[pb.LeaseTimeToLiveRequest](call)
		if err != nil {
			return work{}, err
		}
		return work{read: s.timeToLiveRead(request).encoded(), linear: true}, nil
	case consensusv1.Method_METHOD_LEASE_LEASES:
		return work{read: s.leasesRead().encoded(), linear: true}, nil
	default:
		return work{}, fmt.Errorf("%s is no lease call", call.GetMethod())
	}
}

// parseRevoke refuses no revoke under pressure: revokes are what frees space.
func (s *Server) parseRevoke(call *consensusv1.Call) (work, error) {
	request, err := decode[pb.LeaseRevokeRequest](call)
	if err != nil {
		return work{}, err
	}
	if s.cfg.Limits.tooLarge(call.GetRequest()) {
		return work{}, rpctypes.ErrGRPCRequestTooLarge
	}
	if err := s.alarmed(call.GetMethod(), 0); err != nil {
		return work{}, err
	}
	view, err := s.cfg.Node.Current()
	if err != nil {
		return work{}, err
	}
	defer view.Release()
	const keysPackedMax = 32 // a lease with more keys goes alone into its entry, as a long transaction does
	return work{
		write:     &journalv1.Command{Command: &journalv1.Command_LeaseRevoke{LeaseRevoke: call.GetRequest()}},
		exclusive: len(view.Leases.Keys(request.GetID())) > keysPackedMax,
	}, nil
}

func (s *Server) parseGrant(call *consensusv1.Call) (work, error) {
	request, err := decode[pb.LeaseGrantRequest](call)
	if err != nil {
		return work{}, err
	}
	if err := s.checkSpace(quota.Grant()); err != nil {
		return work{}, err
	}
	if request.GetID() == 0 {
		request.ID = s.ids.leaseID()
	}
	request.TTL = max(request.GetTTL(), s.cfg.Limits.LeaseTTLMinS)
	data, err := proto.Marshal(request)
	if err != nil {
		return work{}, fmt.Errorf("encoding a lease grant: %w", err)
	}
	return s.writing(call, &journalv1.Command{Command: &journalv1.Command_LeaseGrant{LeaseGrant: data}}, false, quota.Grant())
}
