package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

func errorCases() []testCase { return []testCase{{name: "bad requests", run: badRequests}} }

// Limits that etcd has by default.
const (
	txnOpsMax       = 128
	requestBytesMax = 1_572_864
	ttlMaxS         = 9_000_000_000
)

// What bad requests get: etcd's code and text, seen over bare gRPC.
func badRequests(t *testing.T, s *system) {
	conn := s.Conn(t, s.Endpoints()[0])
	kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	k := []byte(key(t, "k"))
	putOp := func(k []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k}}}
	}
	tooMany := &pb.TxnRequest{}
	for range txnOpsMax + 1 {
		tooMany.Success = append(tooMany.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k}}})
	}
	ask := func(name string, want error, call func() error) {
		t.Helper()
		require.EqualError(t, call(), want.Error(), name)
	}
	ranged := func(r *pb.RangeRequest) func() error {
		return func() error { _, err := kv.Range(bounded(t), r); return err }
	}
	putted := func(r *pb.PutRequest) func() error {
		return func() error { _, err := kv.Put(bounded(t), r); return err }
	}
	txned := func(r *pb.TxnRequest) func() error {
		return func() error { _, err := kv.Txn(bounded(t), r); return err }
	}
	ask("empty key in range", rpctypes.ErrGRPCEmptyKey, ranged(&pb.RangeRequest{}))
	ask("empty key in put", rpctypes.ErrGRPCEmptyKey, putted(&pb.PutRequest{Value: []byte("v")}))
	ask("empty key in delete", rpctypes.ErrGRPCEmptyKey, func() error {
		_, err := kv.DeleteRange(bounded(t), &pb.DeleteRangeRequest{})
		return err
	})
	ask("unknown lease", rpctypes.ErrGRPCLeaseNotFound, putted(&pb.PutRequest{Key: k, Lease: 404}))
	ask("value and ignore value", rpctypes.ErrGRPCValueProvided, putted(&pb.PutRequest{Key: k, Value: []byte("v"), IgnoreValue: true}))
	ask("lease and ignore lease", rpctypes.ErrGRPCLeaseProvided, putted(&pb.PutRequest{Key: k, Lease: 1, IgnoreLease: true}))
	ask("no key to ignore the value of", rpctypes.ErrGRPCKeyNotFound, putted(&pb.PutRequest{Key: k, IgnoreValue: true}))
	ask("sort order", rpctypes.ErrGRPCInvalidSortOption, ranged(&pb.RangeRequest{Key: k, SortOrder: 7}))
	ask("sort target", rpctypes.ErrGRPCInvalidSortOption, ranged(&pb.RangeRequest{Key: k, SortTarget: 7}))
	ask("future revision", rpctypes.ErrGRPCFutureRev, ranged(&pb.RangeRequest{Key: k, Revision: 1 << 40}))
	ask("too many operations", rpctypes.ErrGRPCTooManyOps, txned(tooMany))
	ask("duplicate key", rpctypes.ErrGRPCDuplicateKey, txned(&pb.TxnRequest{Success: []*pb.RequestOp{putOp(k), putOp(k)}}))
	ask("operation without request", rpctypes.ErrGRPCKeyNotFound, txned(&pb.TxnRequest{Success: []*pb.RequestOp{{}}}))
	ask("too large", rpctypes.ErrGRPCRequestTooLarge, putted(&pb.PutRequest{Key: k, Value: make([]byte, requestBytesMax)}))
	ask("ttl too large", rpctypes.ErrGRPCLeaseTTLTooLarge, func() error {
		_, err := lease.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{TTL: ttlMaxS + 1})
		return err
	})
	ask("revoke of an unknown lease", rpctypes.ErrGRPCLeaseNotFound, func() error {
		_, err := lease.LeaseRevoke(bounded(t), &pb.LeaseRevokeRequest{ID: 404})
		return err
	})
	r, err := kv.Range(bounded(t), &pb.RangeRequest{Key: k})
	require.NoError(t, err)
	require.Empty(t, r.Kvs, "nothing of all this was stored")
}
