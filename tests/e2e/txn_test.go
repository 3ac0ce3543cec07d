package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func txnCases() []testCase {
	return []testCase{
		{name: "txn compares", run: txnCompares},
		{name: "txn is one revision", run: txnOneRevision},
		{name: "txn nested", run: txnNested},
		{name: "txn over ranges", run: txnRanges},
	}
}

func txnCompares(t *testing.T, s *system) {
	k := key(t, "k")
	lease, err := s.client.Grant(bounded(t), 100)
	require.NoError(t, err)
	first := put(t, s, k, "m")
	put(t, s, k, "n", clientv3.WithLease(lease.ID))
	for _, c := range []struct {
		cmp  clientv3.Cmp
		want bool
	}{
		{clientv3.Compare(clientv3.Value(k), "=", "n"), true},
		{clientv3.Compare(clientv3.Value(k), "!=", "n"), false},
		{clientv3.Compare(clientv3.Value(k), "<", "z"), true},
		{clientv3.Compare(clientv3.Value(k), ">", "z"), false},
		{clientv3.Compare(clientv3.Version(k), "=", 2), true},
		{clientv3.Compare(clientv3.Version(k), ">", 2), false},
		{clientv3.Compare(clientv3.CreateRevision(k), "=", first), true},
		{clientv3.Compare(clientv3.ModRevision(k), "=", first+1), true},
		{clientv3.Compare(clientv3.ModRevision(k), "<", first+1), false},
		{clientv3.Compare(clientv3.LeaseValue(k), "=", lease.ID), true},
		{clientv3.Compare(clientv3.Version(key(t, "none")), "=", 0), true},
		{clientv3.Compare(clientv3.CreateRevision(key(t, "none")), "=", 0), true},
		{clientv3.Compare(clientv3.Value(key(t, "none")), "=", ""), false},
	} {
		r, err := s.client.Txn(bounded(t)).If(c.cmp).Then(clientv3.OpGet(k)).Else(clientv3.OpGet(key(t, "none"))).Commit()
		require.NoError(t, err)
		require.Equal(t, c.want, r.Succeeded, "%v", c.cmp)
		require.Equal(t, c.want, len(r.Responses[0].GetResponseRange().Kvs) == 1)
	}
}

func txnOneRevision(t *testing.T, s *system) {
	prefix := key(t, "")
	before := put(t, s, prefix+"old", "x")
	r, err := s.client.Txn(bounded(t)).Then(
		clientv3.OpPut(prefix+"a", "1"), clientv3.OpPut(prefix+"b", "2"),
		clientv3.OpGet(prefix, clientv3.WithPrefix()), clientv3.OpDelete(prefix+"old"),
	).Commit()
	require.NoError(t, err)
	require.True(t, r.Succeeded, "no comparison succeeds")
	require.Equal(t, before+1, r.Header.Revision)
	require.Equal(t, []string{"1", "2", "x"}, values(r.Responses[2].GetResponseRange().Kvs), "an operation sees those before it")
	require.EqualValues(t, 1, r.Responses[3].GetResponseDeleteRange().Deleted)
	for _, kv := range get(t, s, prefix, clientv3.WithPrefix()).Kvs {
		require.Equal(t, before+1, kv.ModRevision)
	}
	r, err = s.client.Txn(bounded(t)).Then(clientv3.OpGet(prefix, clientv3.WithPrefix())).Commit()
	require.NoError(t, err)
	require.Equal(t, before+1, r.Header.Revision, "what only reads makes no revision")
}

func txnNested(t *testing.T, s *system) {
	a, b, c := key(t, "a"), key(t, "b"), key(t, "c")
	put(t, s, a, "1")
	inner := clientv3.OpTxn(
		[]clientv3.Cmp{clientv3.Compare(clientv3.Value(a), "=", "1")},
		[]clientv3.Op{clientv3.OpPut(b, "then"), clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.Version(c), ">", 0)}, nil, []clientv3.Op{clientv3.OpPut(c, "else")},
		)}, nil)
	r, err := s.client.Txn(bounded(t)).Then(inner).Commit()
	require.NoError(t, err)
	nested := r.Responses[0].GetResponseTxn()
	require.True(t, nested.Succeeded)
	require.False(t, nested.Responses[1].GetResponseTxn().Succeeded)
	require.Equal(t, []string{"then"}, values(get(t, s, b).Kvs))
	require.Equal(t, []string{"else"}, values(get(t, s, c).Kvs))
	require.Equal(t, get(t, s, b).Kvs[0].ModRevision, get(t, s, c).Kvs[0].ModRevision)
}

func txnRanges(t *testing.T, s *system) {
	prefix := key(t, "")
	put(t, s, prefix+"a", "1")
	put(t, s, prefix+"b", "1")
	every := clientv3.Compare(clientv3.Value(prefix), "=", "1").WithPrefix()
	r, err := s.client.Txn(bounded(t)).If(every).Commit()
	require.NoError(t, err)
	require.True(t, r.Succeeded)
	put(t, s, prefix+"b", "2")
	r, err = s.client.Txn(bounded(t)).If(every).Else(clientv3.OpDelete(prefix, clientv3.WithPrefix())).Commit()
	require.NoError(t, err)
	require.False(t, r.Succeeded)
	require.EqualValues(t, 2, r.Responses[0].GetResponseDeleteRange().Deleted)
	require.IsType(t, &pb.ResponseOp_ResponseDeleteRange{}, r.Responses[0].Response)
}
