package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// ErrRequest is the outcome of a command whose request cannot be decoded. It
// comes out alike on every node, so one bad request stops no cluster.
var ErrRequest = status.Error(codes.Internal, "holdfast: the log holds a request that cannot be decoded")

// answer is a response, or why there is none.
type answer struct {
	response proto.Message
	revision int64
	err      error
}

// refused answers with a gRPC status.
func refused(err error) answer { return answer{err: err} }

// decided sorts an error of the key space: a gRPC status is the request's own
// outcome, anything else is trouble with the storage.
func decided(err error) (answer, error) {
	// Not errors.As: a status that is wrapped came out of the storage.
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return refused(err), nil
	}
	return answer{}, err
}

// header is the header of responses that have the present revision.
func (s *step) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: s.m.kv.Revision(), RaftTerm: s.m.term}
}

// answered gives a response whose header is complete but for the term.
func (s *step) answered(response proto.Message, header *pb.ResponseHeader) answer {
	header.RaftTerm = s.m.term
	return answer{response: response, revision: header.Revision}
}

// done answers a command of the cluster's own.
func (s *step) done(response proto.Message) answer {
	return answer{response: response, revision: s.m.kv.Revision()}
}

func (s *step) env(id uint64) mvcc.Env {
	return mvcc.Env{Values: s, Leases: s.m.leases, SkipReads: s.m.Waits != nil && !s.m.Waits(id)}
}

// command applies one command. An error is the process's end, whatever else
// goes wrong is in the outcome.
func (s *step) command(c *journalv1.Command) (Outcome, error) {
	a, err := s.dispatch(c)
	if err != nil {
		return Outcome{}, err
	}
	if s.m.Applied != nil {
		s.m.Applied(opOf(c), a.err != nil)
	}
	return Outcome{
		ID: c.GetId(), Response: a.response, Err: a.err, Revision: a.revision,
		Revisions: len(s.res.Revisions), LeaseChanges: len(s.res.LeaseChanges),
	}, nil
}

func (s *step) dispatch(c *journalv1.Command) (answer, error) {
	if c.GetAuthRevision() != 0 {
		// There are no users yet, so a revision of them that was checked is
		// not the present one.
		return refused(rpctypes.ErrGRPCAuthOldRevision), nil
	}
	if err := s.barred(c); err != nil {
		return refused(err), nil
	}
	switch cmd := c.GetCommand().(type) {
	case *journalv1.Command_Put:
		return s.put(cmd.Put, s.env(c.GetId()))
	case *journalv1.Command_DeleteRange:
		return s.deleteRange(cmd.DeleteRange, s.env(c.GetId()))
	case *journalv1.Command_Txn:
		return s.txn(cmd.Txn, s.env(c.GetId()))
	case *journalv1.Command_Compact:
		return decode(cmd.Compact, &pb.CompactionRequest{}, s.compact)
	case *journalv1.Command_LeaseGrant:
		return decode(cmd.LeaseGrant, &pb.LeaseGrantRequest{}, s.grant)
	case *journalv1.Command_LeaseRevoke:
		return decode(cmd.LeaseRevoke, &pb.LeaseRevokeRequest{}, s.revoke)
	case *journalv1.Command_LeaseExpire:
		return s.expire(cmd.LeaseExpire)
	case *journalv1.Command_LeaseCheckpoint:
		return s.checkpoint(cmd.LeaseCheckpoint)
	case *journalv1.Command_ViewChange:
		return s.changeView(cmd.ViewChange)
	case *journalv1.Command_Alarm:
		return decode(cmd.Alarm, &pb.AlarmRequest{}, func(req *pb.AlarmRequest) (answer, error) {
			resp, err := s.alarm(req)
			return answer{response: resp, revision: resp.GetHeader().GetRevision()}, err
		})
	case *journalv1.Command_MemberAttributes:
		return s.memberAttributes(cmd.MemberAttributes)
	case *journalv1.Command_ClusterVersion:
		return s.clusterVersion(cmd.ClusterVersion)
	}
	return answer{}, ErrEntry
}

// barred returns why a command must not run while an alarm is raised: with a
// corrupt member nothing that reads or writes keys, without space nothing that
// takes more of it. (Whether a Txn does is seen after it is decoded.)
func (s *step) barred(c *journalv1.Command) error {
	if len(s.m.alarms) == 0 {
		return nil
	}
	corrupt, full := s.m.alarms.Has(pb.AlarmType_CORRUPT), s.m.alarms.Has(pb.AlarmType_NOSPACE)
	switch c.GetCommand().(type) {
	case *journalv1.Command_Put, *journalv1.Command_LeaseGrant:
		if full && !corrupt {
			return rpctypes.ErrGRPCNoSpace
		}
	case *journalv1.Command_DeleteRange, *journalv1.Command_Txn, *journalv1.Command_Compact,
		*journalv1.Command_LeaseRevoke, *journalv1.Command_LeaseExpire:
	default:
		return nil
	}
	if corrupt {
		return rpctypes.ErrGRPCCorrupt
	}
	return nil
}

// decode hands an encoded request on.
func decode[R proto.Message](data []byte, req R, run func(R) (answer, error)) (answer, error) {
	if err := proto.Unmarshal(data, req); err != nil {
		return refused(ErrRequest), nil //nolint:nilerr // the outcome is the error
	}
	return run(req)
}
