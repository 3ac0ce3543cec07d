package mvcc

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Operations are counted as etcd counts them, also those whose result nobody waits for.
func TestOps(t *testing.T) {
	s, b := New(), newBucket()
	put(t, s, b, "k", "v")
	read := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), KeysOnly: true}}}
	write := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Value: []byte("vv")}}}
	exists := &pb.Compare{
		Key: []byte("k"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 0},
	}
	env := Env{Values: b, SkipReads: true}
	for name, tc := range map[string]struct {
		run  func() (Effects, error)
		want Ops
	}{
		"put": {func() (Effects, error) {
			_, eff, err := s.Put(&pb.PutRequest{Key: []byte("k"), Value: []byte("v")}, env)
			return eff, err
		}, Ops{Puts: 1, PutBytes: 2}},
		"put with previous": {func() (Effects, error) {
			_, eff, err := s.Put(&pb.PutRequest{Key: []byte("k"), PrevKv: true}, env)
			return eff, err
		}, Ops{Puts: 1, Ranges: 1, Txns: 1, PutBytes: 1}},
		"delete of nothing": {func() (Effects, error) {
			_, eff, err := s.DeleteRange(&pb.DeleteRangeRequest{Key: []byte("none")}, env)
			return eff, err
		}, Ops{Deletes: 1}},
		"guarded put": {func() (Effects, error) {
			_, eff, err := s.Txn(&pb.TxnRequest{Compare: []*pb.Compare{exists}, Success: []*pb.RequestOp{write}}, env)
			return eff, err
		}, Ops{Puts: 1, Ranges: 1, PutBytes: 3}},
		"several of each": {func() (Effects, error) {
			_, eff, err := s.Txn(&pb.TxnRequest{Compare: []*pb.Compare{exists, exists}, Success: []*pb.RequestOp{read, write}}, env)
			return eff, err
		}, Ops{Puts: 1, Ranges: 3, Txns: 2, PutBytes: 3}},
		"keys of a lease": {func() (Effects, error) { return s.DeleteKeys([][]byte{[]byte("none")}), nil }, Ops{}},
	} {
		eff, err := tc.run()
		require.NoError(t, err, name)
		require.Equal(t, tc.want, eff.Ops, name)
	}
	_, ops, err := s.View().Txn(&pb.TxnRequest{Compare: []*pb.Compare{exists}, Success: []*pb.RequestOp{read}}, b)
	require.NoError(t, err)
	require.Equal(t, Ops{Ranges: 2, Txns: 1}, ops)
}
