package e2e

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// spaceQuota is small enough to be used up at once, and much more than an empty database takes.
const spaceQuota = 1 << 20

// TestSpace is for systems with a small quota that compact by themselves: what a cluster does that runs out of space, and how it gets out
// of that again. They are systems of their own, since no other case could write beside.
func TestSpace(t *testing.T) {
	flags := []string{"--quota-backend-bytes", strconv.Itoa(spaceQuota), "--auto-compaction-retention", "1s"}
	for _, runtime := range framework.Runtimes() {
		if *runtimeFlag != "" && *runtimeFlag != runtime.Name || runtime.Name == "standalone-cluster" {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			t.Parallel()
			options := framework.Options{Args: flags}
			if runtime.Name == "split" {
				options = framework.Options{Extra: map[string][]string{"n1": flags, "n2": flags, "n3": flags}}
			}
			c := runtime.Start(t, options)
			s := &system{Cluster: c, client: c.Client(t), oracle: runtime.Oracle}
			for _, one := range []testCase{
				{name: "automatic compaction", run: automaticCompaction},
				{name: "hash", run: wholeHash},
				{name: "downgrade", run: downgrades},
				{name: "out of space", run: outOfSpace},
				{name: "defragment", run: defragments},
			} {
				t.Run(one.name, func(t *testing.T) { one.run(t, s) })
			}
		})
	}
}

// What was overwritten longer ago than the retention cannot be read any more, without anybody asking for a compaction.
func automaticCompaction(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	require.Eventually(t, func() bool {
		put(t, s, k, "2") // an idle history is not compacted again
		_, err := s.client.Get(bounded(t), k, clientv3.WithRev(first))
		if err != nil {
			require.Equal(t, rpctypes.ErrCompacted, err)
		}
		return err != nil
	}, timeout, 100*time.Millisecond)
}

// The hash of everything is the same for the same state, and the header says which state.
func wholeHash(t *testing.T, s *system) {
	maintenance := pb.NewMaintenanceClient(s.Conn(t, s.Endpoints()[0]))
	before := put(t, s, key(t, "k"), "v")
	hash, err := maintenance.Hash(bounded(t), &pb.HashRequest{})
	require.NoError(t, err)
	require.NotZero(t, hash.Hash)
	require.NotZero(t, hash.Header.MemberId)
	require.GreaterOrEqual(t, hash.Header.Revision, before)
	put(t, s, key(t, "k"), "w")
	after, err := maintenance.Hash(bounded(t), &pb.HashRequest{})
	require.NoError(t, err)
	require.NotEqual(t, hash.Hash, after.Hash)
}

// Which versions cannot be downgraded to, in etcd's words.
func downgrades(t *testing.T, s *system) {
	maintenance := pb.NewMaintenanceClient(s.Conn(t, s.Endpoints()[0]))
	ask := func(action pb.DowngradeRequest_DowngradeAction, version string) (*pb.DowngradeResponse, error) {
		return maintenance.Downgrade(bounded(t), &pb.DowngradeRequest{Action: action, Version: version})
	}
	for version, want := range map[string]error{
		"3.7.0": rpctypes.ErrGRPCInvalidDowngradeTargetVersion, "3.5.0": rpctypes.ErrGRPCInvalidDowngradeTargetVersion,
		"3.8": rpctypes.ErrGRPCInvalidDowngradeTargetVersion, "x": rpctypes.ErrGRPCWrongDowngradeVersionFormat,
		"": rpctypes.ErrGRPCWrongDowngradeVersionFormat, "3": rpctypes.ErrGRPCWrongDowngradeVersionFormat,
	} {
		for _, action := range []pb.DowngradeRequest_DowngradeAction{pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE} {
			_, err := ask(action, version)
			require.EqualError(t, err, want.Error(), "%s %q", action, version)
		}
	}
	r, err := ask(pb.DowngradeRequest_CANCEL, "")
	require.NoError(t, err, "there is nothing to cancel")
	require.Equal(t, "3.7", r.Version)
	require.NotZero(t, r.Header.MemberId)
	r, err = ask(pb.DowngradeRequest_VALIDATE, "3.6.0")
	require.NoError(t, err)
	require.Equal(t, "3.7", r.Version)
	if !s.implemented() {
		_, err = ask(pb.DowngradeRequest_ENABLE, "3.6.0")
		require.Equal(t, codes.Unimplemented, status.Code(err))
	}
}

// outOfSpace fills the database until a write is refused, and frees space again.
func outOfSpace(t *testing.T, s *system) {
	conn := s.Conn(t, s.Endpoints()[0])
	kv, lease, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
	st, err := maintenance.Status(bounded(t), &pb.StatusRequest{})
	require.NoError(t, err)
	require.EqualValues(t, spaceQuota, st.DbSizeQuota)
	granted := int64(grant(t, s, longTTL))
	kept := grant(t, s, longTTL)
	value := make([]byte, 40_000)
	name := func(i int) []byte { return []byte(key(t, strconv.Itoa(i))) }
	taken := 0
	for err == nil {
		if _, err = kv.Put(bounded(t), &pb.PutRequest{Key: name(taken), Value: value}); err == nil {
			taken++
		}
		require.Less(t, taken, 1000) // etcd looks at what it has committed, every 100 ms
	}
	require.EqualError(t, err, rpctypes.ErrGRPCNoSpace.Error())
	require.Greater(t, taken, 10)
	members, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	alarms, err := s.client.AlarmList(bounded(t))
	require.NoError(t, err)
	require.Len(t, alarms.Alarms, 1)
	require.Equal(t, pb.AlarmType_NOSPACE, alarms.Alarms[0].Alarm)
	ids := map[uint64]bool{}
	for _, m := range members.Members {
		ids[m.ID] = true
	}
	require.True(t, ids[alarms.Alarms[0].MemberID], "the alarm names a member")

	putOp := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("x")}}}
	deleteOp := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: name(0)}}}
	refused := func(name string, err error) {
		t.Helper()
		require.EqualError(t, err, rpctypes.ErrGRPCNoSpace.Error(), name)
	}
	_, err = kv.Put(bounded(t), &pb.PutRequest{Key: []byte("x")})
	refused("a small put", err)
	_, err = kv.Put(bounded(t), &pb.PutRequest{Value: value})
	refused("a malformed put", err)
	_, err = kv.Txn(bounded(t), &pb.TxnRequest{Failure: []*pb.RequestOp{putOp}})
	refused("a txn with a put in the branch that is not taken", err)
	_, err = lease.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{TTL: longTTL})
	refused("a grant", err)

	_, err = kv.Range(bounded(t), &pb.RangeRequest{Key: name(0)})
	require.NoError(t, err)
	_, err = kv.Txn(bounded(t), &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp}})
	require.NoError(t, err, "a txn that deletes")
	_, err = lease.LeaseRevoke(bounded(t), &pb.LeaseRevokeRequest{ID: granted})
	require.NoError(t, err)
	_, err = s.client.KeepAliveOnce(bounded(t), kept)
	require.NoError(t, err)
	code, body := framework.Get(t, s.Endpoints()[0]+"/health")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.JSONEq(t, `{"health":"false","reason":"ALARM NOSPACE"}`, body)
	code, _ = framework.Get(t, s.Endpoints()[0]+"/health?exclude=NOSPACE")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, ctl(t, s, "alarm", "list"), "alarm:NOSPACE")

	size := func() int64 {
		r, err := maintenance.Status(bounded(t), &pb.StatusRequest{})
		require.NoError(t, err)
		return r.DbSize
	}
	var full int64
	require.Eventually(t, func() bool { full = size(); return full > spaceQuota/2 }, timeout, 10*time.Millisecond, "it is committed")

	// The way out, as etcd's manual has it.
	deleted, err := kv.DeleteRange(bounded(t), &pb.DeleteRangeRequest{Key: []byte(key(t, "")), RangeEnd: []byte(key(t, "") + "z")})
	require.NoError(t, err)
	left := deleted.Deleted
	if s.writesWhatItRefuses() && left == int64(taken) {
		left--
	}
	require.EqualValues(t, taken-1, left)
	_, err = kv.Compact(bounded(t), &pb.CompactionRequest{Revision: deleted.Header.Revision, Physical: true})
	if !errors.Is(err, rpctypes.ErrGRPCCompacted) { // it may just have been compacted by itself
		require.NoError(t, err)
	}
	_, err = kv.Put(bounded(t), &pb.PutRequest{Key: []byte("x")})
	refused("a put before the alarm is taken back", err)
	require.Contains(t, ctl(t, s, "defrag"), "Finished defragmenting etcd member")
	require.Less(t, size(), full/2)
	require.Contains(t, ctl(t, s, "alarm", "disarm"), "alarm:NOSPACE")
	require.Empty(t, strings.TrimSpace(ctl(t, s, "alarm", "list")))
	for i := range 5 {
		_, err = kv.Put(bounded(t), &pb.PutRequest{Key: name(i), Value: value})
		require.NoError(t, err)
	}
}

// Defragment changes nothing in the database but its size.
func defragments(t *testing.T, s *system) {
	maintenance := pb.NewMaintenanceClient(s.Conn(t, s.Endpoints()[0]))
	k := key(t, "k")
	var revision int64
	for range 10 {
		revision = put(t, s, k, strings.Repeat("x", 30_000))
	}
	_, err := s.client.Compact(bounded(t), revision, clientv3.WithCompactPhysical())
	if !errors.Is(err, rpctypes.ErrCompacted) {
		require.NoError(t, err)
	}
	st := func() *pb.StatusResponse {
		r, err := maintenance.Status(bounded(t), &pb.StatusRequest{})
		require.NoError(t, err)
		return r
	}
	before := st()
	hash, err := maintenance.HashKV(bounded(t), &pb.HashKVRequest{Revision: revision})
	require.NoError(t, err)
	r, err := maintenance.Defragment(bounded(t), &pb.DefragmentRequest{})
	require.NoError(t, err)
	require.Nil(t, r.Header)
	after := st()
	require.LessOrEqual(t, after.DbSize, before.DbSize)
	require.LessOrEqual(t, after.DbSizeInUse, after.DbSize)
	again, err := maintenance.HashKV(bounded(t), &pb.HashKVRequest{Revision: revision})
	require.NoError(t, err)
	if again.CompactRevision == hash.CompactRevision { // it may have been compacted by itself meanwhile
		require.Equal(t, hash.Hash, again.Hash)
	}
	require.Len(t, get(t, s, k).Kvs, 1)
	put(t, s, k, "after")
}
