package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// state is all that a snapshot must carry, as text so that a difference can be read.
type state struct {
	Revision, Compact int64
	// Hash is HashKV at Revision.
	Hash uint32
	// Ranges are all keys at each revision that is not compacted, with their metadata.
	Ranges map[int64]string
	Events []string
	Leases []string
	Alarms []string
}

// stateOf asks one endpoint for everything.
func stateOf(t *testing.T, c *framework.Cluster, endpoint string) state {
	t.Helper()
	client := client(t, c, endpoint)
	s := state{Ranges: map[int64]string{}}
	hash, err := client.HashKV(bounded(t), endpoint, 0)
	require.NoError(t, err)
	s.Revision, s.Hash, s.Compact = hash.Header.Revision, hash.Hash, hash.CompactRevision
	for revision := max(s.Compact, 1); revision <= s.Revision; revision++ {
		s.Ranges[revision] = everything(t, client, revision)
	}
	return s
}

func everything(t *testing.T, client *clientv3.Client, revision int64) string {
	t.Helper()
	r, err := client.Get(bounded(t), "\x00", clientv3.WithFromKey(), clientv3.WithRev(revision))
	require.NoError(t, err)
	var b strings.Builder
	for _, kv := range r.Kvs {
		fmt.Fprintf(&b, "%s=%.40s created %d modified %d version %d lease %x\n", kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
	}
	return b.String()
}

// withLeases adds what only client endpoints tell: the leases, with their full TTL where that is asked, the alarms, and the history
// as a watch sees it.
func (s state) withLeases(t *testing.T, c *framework.Cluster, fullTTL bool) state {
	t.Helper()
	client := client(t, c, c.Endpoints()[0])
	leases, err := client.Leases(bounded(t))
	require.NoError(t, err)
	for _, lease := range leases.Leases {
		r, err := client.TimeToLive(bounded(t), lease.ID, clientv3.WithAttachedKeys())
		require.NoError(t, err)
		keys := make([]string, 0, len(r.Keys))
		for _, key := range r.Keys {
			keys = append(keys, string(key))
		}
		slices.Sort(keys)
		s.Leases = append(s.Leases, fmt.Sprintf("%x granted %d keys %v", lease.ID, r.GrantedTTL, keys))
		if fullTTL {
			const grace = 60 // seconds since the start
			require.Greater(t, r.TTL, r.GrantedTTL-grace)
		}
	}
	slices.Sort(s.Leases)
	alarms, err := client.AlarmList(bounded(t))
	require.NoError(t, err)
	for _, alarm := range alarms.Alarms {
		s.Alarms = append(s.Alarms, fmt.Sprintf("%x %s", alarm.MemberID, alarm.Alarm))
	}
	s.Events = events(t, client, s)
	return s
}

// events are the changes from the compact revision on.
func events(t *testing.T, client *clientv3.Client, s state) (out []string) {
	t.Helper()
	from := max(s.Compact, 1)
	for r := range client.Watch(bounded(t), "\x00", clientv3.WithFromKey(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		require.NoError(t, r.Err())
		for _, e := range r.Events {
			out = append(out, fmt.Sprintf("%s %s=%.40s at %d before %.40s", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision, e.PrevKv.GetValue()))
			if e.Kv.ModRevision == s.Revision {
				return out
			}
		}
	}
	t.Fatal("the watch ended")
	return nil
}

// same asserts that every member of a cluster has the state.
func same(t *testing.T, want state, c *framework.Cluster, fullTTL bool) {
	t.Helper()
	for _, endpoint := range members(c) {
		got := stateOf(t, c, endpoint)
		got.Leases, got.Alarms, got.Events = want.Leases, want.Alarms, want.Events
		require.Equal(t, want, got, endpoint)
	}
	got := stateOf(t, c, c.Endpoints()[0]).withLeases(t, c, fullTTL)
	require.Equal(t, want, got)
}

// write makes a history that has everything in it: keys that are changed, deleted and made again, transactions, leases with and
// without keys, a compaction in the middle, and users and roles where the system has them.
func write(t *testing.T, c *framework.Cluster, withUsers bool) {
	t.Helper()
	client, ctx := client(t, c, c.Endpoints()[0]), bounded(t)
	do := func(err error) { t.Helper(); require.NoError(t, err) }
	put := func(key, value string, opts ...clientv3.OpOption) {
		t.Helper()
		_, err := client.Put(ctx, key, value, opts...)
		do(err)
	}
	for i := range 20 {
		put(fmt.Sprintf("key/%02d", i), fmt.Sprintf("first %d", i))
	}
	for i := range 10 {
		_, err := client.Delete(ctx, fmt.Sprintf("key/%02d", i))
		do(err)
	}
	_, err := client.Txn(ctx).If(clientv3.Compare(clientv3.Version("key/15"), "=", 1)).Then(
		clientv3.OpPut("key/15", "in a transaction"), clientv3.OpPut("key/16", "in a transaction"), clientv3.OpDelete("key/17")).Commit()
	do(err)
	for _, ttl := range []int64{300, 4000, 100_000} {
		lease, err := client.Grant(ctx, ttl)
		do(err)
		put(fmt.Sprintf("leased/%d", ttl), "v", clientv3.WithLease(lease.ID))
		put(fmt.Sprintf("leased/%d/too", ttl), "v", clientv3.WithLease(lease.ID))
	}
	_, err = client.Grant(ctx, 5000) // without keys
	do(err)
	at, err := client.Get(ctx, "key/00")
	do(err)
	_, err = client.Compact(ctx, at.Header.Revision-4, clientv3.WithCompactPhysical())
	do(err)
	for i := range 20 {
		put(fmt.Sprintf("key/%02d", i), fmt.Sprintf("second %d", i))
	}
	_, err = client.Delete(ctx, "key/1", clientv3.WithPrefix())
	do(err)
	put("binary/\xff\xfe", strings.Repeat("\x00\xff", 1000))
	put("empty", "")
	if withUsers {
		_, err := client.UserAdd(ctx, "alice", "secret")
		do(err)
		_, err = client.RoleAdd(ctx, "reader")
		do(err)
	}
	_, err = client.Delete(ctx, "empty") // the last revision is a tombstone
	do(err)
}

// alarmed raises an alarm, as a member that is out of space does.
func alarmed(t *testing.T, c *framework.Cluster) {
	t.Helper()
	conn := c.Conn(t, c.Endpoints()[0])
	_, err := pb.NewMaintenanceClient(conn).Alarm(bounded(t), &pb.AlarmRequest{
		Action: pb.AlarmRequest_ACTIVATE, MemberID: 0xabc, Alarm: pb.AlarmType_NOSPACE,
	})
	require.NoError(t, err)
}

// writable takes the alarm back, which must be in force, and writes on: to a key that is there, and under a lease that was carried.
func writable(t *testing.T, c *framework.Cluster, before state) {
	t.Helper()
	client := client(t, c, c.Endpoints()[0])
	_, err := client.Put(bounded(t), "key/00", "third")
	require.ErrorIs(t, err, rpctypes.ErrNoSpace)
	must(t, "etcdctl", "--endpoints", c.Endpoints()[0], "alarm", "disarm")
	leases, err := client.Leases(bounded(t))
	require.NoError(t, err)
	r, err := client.Put(bounded(t), "key/00", "third", clientv3.WithLease(leases.Leases[0].ID), clientv3.WithPrevKV())
	require.NoError(t, err)
	require.Equal(t, before.Revision+1, r.Header.Revision)
	require.Equal(t, "second 0", string(r.PrevKv.Value))
	_, err = client.Revoke(bounded(t), leases.Leases[0].ID)
	require.NoError(t, err)
	got, err := client.Get(bounded(t), "key/00")
	require.NoError(t, err)
	require.Empty(t, got.Kvs)
}
