package mvcc

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// CheckRange returns what etcd's API refuses a range request for, whatever the
// state: ErrGRPCEmptyKey, ErrGRPCInvalidSortOption. Negative limits and
// revisions are allowed and mean no limit and the newest revision.
func CheckRange(req *pb.RangeRequest) error {
	if len(req.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return checkSort(req.SortTarget, req.SortOrder)
}

// CheckRangeStream is CheckRange for RangeStream, which takes neither a sort
// option nor revision filters: Unimplemented, with etcd's texts. A sort target
// without an order is refused too: etcd takes it, sorts each chunk for itself
// and goes on behind the last of it, so that keys come twice or never.
func CheckRangeStream(req *pb.RangeRequest) error {
	switch err := CheckRange(req); {
	case err != nil:
		return err
	case !IsKeyOrder(req.SortTarget, req.SortOrder), req.SortTarget != pb.RangeRequest_KEY:
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	case HasRevisionFilters(req):
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

// CheckPut returns ErrGRPCEmptyKey, ErrGRPCValueProvided or
// ErrGRPCLeaseProvided.
func CheckPut(req *pb.PutRequest) error {
	switch {
	case len(req.GetKey()) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case req.IgnoreValue && len(req.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case req.IgnoreLease && req.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

// CheckDelete returns ErrGRPCEmptyKey.
func CheckDelete(req *pb.DeleteRangeRequest) error {
	if len(req.GetKey()) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// CheckTxn returns ErrGRPCTooManyOps, the errors of the checks above for each
// operation, ErrGRPCKeyNotFound for an operation that is none, and
// ErrGRPCDuplicateKey if one key would be written twice. maxOps bounds the
// longest list of a transaction and, in it, what nested ones may have left.
func CheckTxn(req *pb.TxnRequest, maxOps int) error {
	if err := checkTxnOps(req, maxOps); err != nil {
		return err
	}
	if _, err := checkOverlap(req.GetSuccess()); err != nil {
		return err
	}
	_, err := checkOverlap(req.GetFailure())
	return err
}

func checkTxnOps(req *pb.TxnRequest, maxOps int) error {
	success, failure := req.GetSuccess(), req.GetFailure()
	ops := max(len(req.GetCompare()), len(success), len(failure))
	if ops > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range req.GetCompare() {
		if len(c.GetKey()) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, list := range [][]*pb.RequestOp{success, failure} {
		for _, op := range list {
			if err := checkOp(op, maxOps-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxOps int) error {
	switch r := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return CheckRange(r.RequestRange)
	case *pb.RequestOp_RequestPut:
		return CheckPut(r.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return CheckDelete(r.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(r.RequestTxn, maxOps)
	default:
		return rpctypes.ErrGRPCKeyNotFound
	}
}
