package edge

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// alarmed returns why a write may not be proposed while alarms are raised, or nil.
//
// Apply is what refuses such a write for certain, on every node alike. This refuses it before it costs an entry of the log, and only on the
// leader: another node may not have heard yet that an alarm was taken back, and sends the write on anyway.
// cost is what it may add to the database, as the quota reckons.
func (s *Server) alarmed(method consensusv1.Method, cost int64) error {
	if alarms := s.cfg.Node.Alarms(); len(alarms) > 0 && s.leads() {
		return barred(alarms, method, cost)
	}
	return nil
}

// barred gives etcd's answer to a call under the alarms that are raised. With a corrupt member nothing may be written, so that the difference
// does not spread; reads, keepalives and everything about members and alarms go on. With a member that has no space what takes space may
// not be written, and what frees it goes on; so a disk that is nearly full is not filled up by entries that apply would refuse.
func barred(alarms apply.Alarms, method consensusv1.Method, cost int64) error {
	switch method { //nolint:exhaustive // the others are not barred
	case consensusv1.Method_METHOD_PUT, consensusv1.Method_METHOD_DELETE_RANGE, consensusv1.Method_METHOD_TXN,
		consensusv1.Method_METHOD_COMPACT, consensusv1.Method_METHOD_LEASE_GRANT, consensusv1.Method_METHOD_LEASE_REVOKE:
		if alarms.Has(pb.AlarmType_CORRUPT) {
			return rpctypes.ErrGRPCCorrupt
		}
	}
	if cost > 0 && alarms.Has(pb.AlarmType_NOSPACE) {
		return rpctypes.ErrGRPCNoSpace
	}
	return nil
}
