package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

func (s *step) put(data []byte, env mvcc.Env) (answer, error) {
	req, err := DecodePut(data)
	if err != nil {
		return refused(ErrRequest), nil //nolint:nilerr // the outcome is the error
	}
	resp, eff, err := s.m.kv.Put(req, env)
	if err != nil {
		return decided(err)
	}
	s.store(eff)
	return s.answered(resp, resp.Header), nil
}

func (s *step) deleteRange(data []byte, env mvcc.Env) (answer, error) {
	return decode(data, &pb.DeleteRangeRequest{}, func(req *pb.DeleteRangeRequest) (answer, error) {
		resp, eff, err := s.m.kv.DeleteRange(req, env)
		if err != nil {
			return decided(err)
		}
		s.store(eff)
		return s.answered(resp, resp.Header), nil
	})
}

func (s *step) txn(data []byte, env mvcc.Env) (answer, error) {
	return decode(data, &pb.TxnRequest{}, func(req *pb.TxnRequest) (answer, error) {
		if len(s.m.alarms) > 0 && s.m.alarms.Has(pb.AlarmType_NOSPACE) && puts(req) {
			return refused(rpctypes.ErrGRPCNoSpace), nil
		}
		resp, eff, err := s.m.kv.Txn(req, env)
		if err != nil {
			return decided(err)
		}
		s.store(eff)
		return s.answered(resp, resp.Header), nil
	})
}

// puts says whether any branch of a transaction, taken or not, holds a put.
func puts(req *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{req.GetSuccess(), req.GetFailure()} {
		for _, op := range ops {
			if op.GetRequestPut() != nil || puts(op.GetRequestTxn()) {
				return true
			}
		}
	}
	return false
}
