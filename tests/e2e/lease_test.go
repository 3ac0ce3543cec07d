package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func leaseCases() []testCase {
	return []testCase{
		{name: "lease grant and list", run: leaseGrant},
		{name: "lease revoke", run: leaseRevoke},
		{name: "lease time to live", run: leaseTimeToLive},
		{name: "lease keepalive once", run: leaseKeepAliveOnce},
		{name: "lease of a key moves", run: leaseMoves},
		{name: "lease expires", run: leaseExpires, patient: true},
		{name: "lease kept alive", run: leaseKept, patient: true},
	}
}

// longTTL outlasts every case, in seconds.
const longTTL = 1000

func grant(t *testing.T, s *system, ttl int64) clientv3.LeaseID {
	t.Helper()
	r, err := s.client.Grant(bounded(t), ttl)
	require.NoError(t, err)
	require.Equal(t, ttl, r.TTL)
	require.NotZero(t, r.ID)
	require.NotZero(t, r.Revision)
	return r.ID
}

func leaseGrant(t *testing.T, s *system) {
	a, b := grant(t, s, longTTL), grant(t, s, longTTL)
	require.NotEqual(t, a, b)
	list, err := s.client.Leases(bounded(t))
	require.NoError(t, err)
	var ids []clientv3.LeaseID
	for _, l := range list.Leases {
		ids = append(ids, l.ID)
	}
	require.Subset(t, ids, []clientv3.LeaseID{a, b})

	// An id may be asked for, once.
	api := pb.NewLeaseClient(s.Conn(t, s.Endpoints()[0]))
	r, err := api.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{ID: 4711, TTL: longTTL})
	require.NoError(t, err)
	require.EqualValues(t, 4711, r.ID)
	_, err = api.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{ID: 4711, TTL: longTTL})
	require.EqualError(t, err, rpctypes.ErrGRPCLeaseExist.Error())
	// Less than the least is raised to it: one and a half election timeouts.
	r, err = api.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{TTL: 1})
	require.NoError(t, err)
	require.EqualValues(t, 2, r.TTL)
	_, err = api.LeaseRevoke(bounded(t), &pb.LeaseRevokeRequest{ID: r.ID})
	require.NoError(t, err)
}

func leaseRevoke(t *testing.T, s *system) {
	prefix := key(t, "")
	lease := grant(t, s, longTTL)
	put(t, s, prefix+"a", "1", clientv3.WithLease(lease))
	before := put(t, s, prefix+"b", "2", clientv3.WithLease(lease))
	put(t, s, prefix+"c", "3")
	watch := s.client.Watch(bounded(t), prefix, clientv3.WithPrefix(), clientv3.WithRev(before+2), clientv3.WithPrevKV())
	_, err := s.client.Revoke(bounded(t), lease)
	require.NoError(t, err)
	require.Equal(t, []string{"3"}, values(get(t, s, prefix, clientv3.WithPrefix()).Kvs))
	for _, e := range collect(t, watch, 2) {
		require.Equal(t, clientv3.EventTypeDelete, e.Type)
		require.Equal(t, before+2, e.Kv.ModRevision, "all keys go in one revision")
		require.NotNil(t, e.PrevKv)
	}
	_, err = s.client.Revoke(bounded(t), lease)
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
	_, err = s.client.Put(bounded(t), prefix+"a", "1", clientv3.WithLease(lease))
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
}

func leaseTimeToLive(t *testing.T, s *system) {
	prefix := key(t, "")
	lease := grant(t, s, longTTL)
	put(t, s, prefix+"a", "1", clientv3.WithLease(lease))
	put(t, s, prefix+"b", "1", clientv3.WithLease(lease))
	r, err := s.client.TimeToLive(bounded(t), lease, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	require.EqualValues(t, longTTL, r.GrantedTTL)
	require.LessOrEqual(t, r.TTL, int64(longTTL))
	require.Greater(t, r.TTL, int64(longTTL-30))
	require.ElementsMatch(t, [][]byte{[]byte(prefix + "a"), []byte(prefix + "b")}, r.Keys)
	r, err = s.client.TimeToLive(bounded(t), lease)
	require.NoError(t, err)
	require.Empty(t, r.Keys)
	r, err = s.client.TimeToLive(bounded(t), 404)
	require.NoError(t, err)
	require.EqualValues(t, -1, r.TTL)
	require.Zero(t, r.GrantedTTL)
}

func leaseKeepAliveOnce(t *testing.T, s *system) {
	lease := grant(t, s, longTTL)
	r, err := s.client.KeepAliveOnce(bounded(t), lease)
	require.NoError(t, err)
	require.EqualValues(t, longTTL, r.TTL)
	_, err = s.client.KeepAliveOnce(bounded(t), 404)
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
	_, err = s.client.Revoke(bounded(t), lease)
	require.NoError(t, err)
	_, err = s.client.KeepAliveOnce(bounded(t), lease)
	require.ErrorIs(t, err, rpctypes.ErrLeaseNotFound)
}

func leaseMoves(t *testing.T, s *system) {
	k := key(t, "k")
	first, second := grant(t, s, longTTL), grant(t, s, longTTL)
	put(t, s, k, "1", clientv3.WithLease(first))
	put(t, s, k, "2", clientv3.WithLease(second))
	_, err := s.client.Revoke(bounded(t), first)
	require.NoError(t, err)
	require.Equal(t, []string{"2"}, values(get(t, s, k).Kvs), "the key hangs on the second lease now")
	put(t, s, k, "3")
	_, err = s.client.Revoke(bounded(t), second)
	require.NoError(t, err)
	require.Equal(t, []string{"3"}, values(get(t, s, k).Kvs), "the key hangs on no lease now")
}

// A lease that nobody keeps goes with its keys, not before its time, and watchers see it.
func leaseExpires(t *testing.T, s *system) {
	const ttl = 3
	k := key(t, "k")
	begun := time.Now()
	lease := grant(t, s, ttl)
	revision := put(t, s, k, "v", clientv3.WithLease(lease))
	events := collect(t, s.client.Watch(bounded(t), k, clientv3.WithRev(revision+1)), 1)
	require.Equal(t, clientv3.EventTypeDelete, events[0].Type)
	lived := time.Since(begun)
	require.GreaterOrEqual(t, lived, ttl*time.Second, "too early")
	const lateMax = 8 * time.Second // 2 s are promised; the machine may be busy
	require.Less(t, lived, ttl*time.Second+lateMax)
	require.Empty(t, get(t, s, k).Kvs)
	r, err := s.client.TimeToLive(bounded(t), lease)
	require.NoError(t, err)
	require.EqualValues(t, -1, r.TTL)
}

// A lease that is kept alive outlives its TTL.
func leaseKept(t *testing.T, s *system) {
	const ttl = 3
	k := key(t, "k")
	lease := grant(t, s, ttl)
	put(t, s, k, "v", clientv3.WithLease(lease))
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	alive, err := s.client.KeepAlive(ctx, lease)
	require.NoError(t, err)
	for begun := time.Now(); time.Since(begun) < 2*ttl*time.Second; {
		r, ok := <-alive
		require.True(t, ok, "the client gave the lease up")
		require.EqualValues(t, ttl, r.TTL)
	}
	require.Len(t, get(t, s, k).Kvs, 1)
	_, err = s.client.Revoke(ctx, lease)
	require.NoError(t, err)
}
