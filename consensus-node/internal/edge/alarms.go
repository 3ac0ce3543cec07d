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
func (s *Server) alarmed(method consensusv1.Method) error {
	if alarms := s.cfg.Node.Alarms(); len(alarms) > 0 && s.leads() {
		return barred(alarms, method)
	}
	return nil
}

// barred gives etcd's answer to a call under the alarms that are raised. With a corrupt member nothing may be written, so that the difference
// does not spread; reads, keepalives and everything about members and alarms go on.
func barred(alarms apply.Alarms, method consensusv1.Method) error {
	switch method { //nolint:exhaustive // the others are not barred
	case consensusv1.Method_METHOD_PUT, consensusv1.Method_METHOD_DELETE_RANGE, consensusv1.Method_METHOD_TXN,
		consensusv1.Method_METHOD_COMPACT, consensusv1.Method_METHOD_LEASE_GRANT, consensusv1.Method_METHOD_LEASE_REVOKE:
		if alarms.Has(pb.AlarmType_CORRUPT) {
			return rpctypes.ErrGRPCCorrupt
		}
	}
	return nil
}
