package quota_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/quota"
)

func put(key, value int) *pb.PutRequest {
	return &pb.PutRequest{Key: make([]byte, key), Value: make([]byte, value)}
}

func putOp(key, value int) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put(key, value)}}
}

func txnOp(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

func deleteOp() *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}}}
}

// The costs are those of etcd's quota.go.
func TestCosts(t *testing.T) {
	require.EqualValues(t, 256+3+4, quota.Put(put(3, 4)))
	require.EqualValues(t, 64, quota.Grant())
	require.Zero(t, quota.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{deleteOp()}, Failure: []*pb.RequestOp{deleteOp()}}))
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{putOp(1, 1), deleteOp(), putOp(1, 1)}, Failure: []*pb.RequestOp{putOp(1, 9)}}
	require.EqualValues(t, 2*258, quota.Txn(nested), "puts of a branch add up, and the costlier branch counts")
	require.EqualValues(t, 2*258+266, quota.Txn(&pb.TxnRequest{Failure: []*pb.RequestOp{txnOp(nested), putOp(1, 9)}}))
}

func TestBytes(t *testing.T) {
	require.EqualValues(t, 2<<30, quota.Bytes(0))
	require.EqualValues(t, -1, quota.Bytes(-1))
	require.EqualValues(t, 5, quota.Bytes(5))
}

func TestFits(t *testing.T) {
	for name, tc := range map[string]struct {
		usage quota.Usage
		quota int64
		cost  int64
		fits  bool
	}{
		"room":                        {quota.Usage{InUse: 10, File: 10}, 100, 89, true},
		"the quota itself is over it": {quota.Usage{InUse: 10, File: 10}, 100, 90, false},
		"free pages count as room":    {quota.Usage{InUse: 10, File: 200}, 100, 50, true},
		"the file's bound":            {quota.Usage{InUse: 10, File: 200, FileMax: 210}, 100, 50, false},
		"no quota":                    {quota.Usage{InUse: 1 << 60, File: 1 << 60}, -1, 50, true},
		"no quota, but a bound":       {quota.Usage{InUse: 10, File: 1 << 60, FileMax: 1 << 60}, -1, 50, false},
		"a full disk":                 {quota.Usage{DiskFull: true}, -1, 1, false},
		"what costs nothing":          {quota.Usage{InUse: 500, File: 500, FileMax: 1, DiskFull: true}, 100, 0, true},
	} {
		require.Equal(t, tc.fits, tc.usage.Fits(tc.quota, tc.cost), name)
	}
	require.True(t, quota.Usage{InUse: 99}.Full(100))
	require.False(t, quota.Usage{InUse: 98}.Full(100))
}
