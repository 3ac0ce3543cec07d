package app

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/config"
)

// one makes one call and gives its answer.
func (c *caller) one(method consensusv1.Method, request proto.Message) *consensusv1.Answer {
	c.t.Helper()
	return c.do(call(c.t, method, request))[0]
}

func (c *caller) put(key string, bytes int) *consensusv1.Answer {
	c.t.Helper()
	return c.one(consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key), Value: make([]byte, bytes)})
}

// alarms gives the members whose NOSPACE alarm is raised.
func (c *caller) alarms() (members []uint64) {
	c.t.Helper()
	for _, alarm := range read[pb.AlarmResponse](c.t, c.one(consensusv1.Method_METHOD_ALARM, &pb.AlarmRequest{})).GetAlarms() {
		require.Equal(c.t, pb.AlarmType_NOSPACE, alarm.GetAlarm())
		members = append(members, alarm.GetMemberID())
	}
	return members
}

func (c *caller) disarm(member uint64) {
	c.t.Helper()
	read[pb.AlarmResponse](c.t, c.one(consensusv1.Method_METHOD_ALARM, &pb.AlarmRequest{
		Action: pb.AlarmRequest_DEACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE,
	}))
}

func requireNoSpace(t *testing.T, answers ...*consensusv1.Answer) {
	t.Helper()
	for _, answer := range answers {
		require.Equal(t, rpctypes.ErrGRPCNoSpace.Error(), status.Error(codes.Code(answer.GetCode()), answer.GetMessage()).Error())
	}
}

func txn(ops ...*pb.RequestOp) *pb.TxnRequest { return &pb.TxnRequest{Failure: ops} }

var (
	putX  = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("x")}}}
	delY  = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("y")}}}
	readX = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("x")}}}
)

// Past the quota what takes space is refused and the alarm says which member is full; everything else goes on. What a compaction frees is
// room at once, without a defragmentation, when the alarm is disarmed.
func TestQuota(t *testing.T) {
	t.Parallel()
	const quotaBytes = 600_000
	n := runNode(t, testConfig(t, t.TempDir(), "--quota-backend-bytes=600000"))
	c := newCaller(t, n.direct)
	lease := read[pb.LeaseGrantResponse](t, c.one(consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: 600}))
	var last *consensusv1.Answer
	taken := 0
	for last = c.put("k", 30_000); last.GetCode() == 0; last = c.put("k", 30_000) {
		taken++
		require.Less(t, taken, 30)
	}
	require.Greater(t, taken, 5)
	requireNoSpace(t, last)
	require.Equal(t, []uint64{n.memberID}, c.alarms(), "it is raised when the write is answered")
	require.NoError(t, n.disk.store.Flush(t.Context()))
	st := read[pb.StatusResponse](t, c.one(consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{}))
	require.EqualValues(t, quotaBytes, st.GetDbSizeQuota())
	require.Len(t, st.GetErrors(), 1)
	require.Contains(t, st.GetErrors()[0], "alarm:NOSPACE")

	requireNoSpace(t, c.put("k", 200_000), c.put("", 200_000), c.one(consensusv1.Method_METHOD_TXN, txn(putX)), c.one(consensusv1.Method_METHOD_TXN, txn(delY, putX)),
		c.one(consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: 600}))
	read[pb.TxnResponse](t, c.one(consensusv1.Method_METHOD_TXN, txn(delY, readX)))
	read[pb.RangeResponse](t, c.one(consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k")}))
	read[pb.LeaseRevokeResponse](t, c.one(consensusv1.Method_METHOD_LEASE_REVOKE, &pb.LeaseRevokeRequest{ID: lease.GetID()}))

	c.disarm(n.memberID)
	require.Empty(t, c.alarms())
	requireNoSpace(t, c.put("k", 200_000)) // it is as full as before
	require.Equal(t, []uint64{n.memberID}, c.alarms())

	deleted := read[pb.DeleteRangeResponse](t, c.one(consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("k")}))
	read[pb.CompactionResponse](t, c.one(consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{
		Revision: deleted.GetHeader().GetRevision(), Physical: true,
	}))
	requireNoSpace(t, c.put("k", 1)) // by apply: the alarm is still raised
	require.Less(t, n.disk.store.SizeInUse(), int64(quotaBytes/4), "what was compacted is free")
	c.disarm(n.memberID)
	for i := range 5 {
		answer := c.put("k", 30_000)
		require.Zero(t, answer.GetCode(), "put %d: %s", i, answer.GetMessage())
	}
	require.Empty(t, c.alarms())
	require.Greater(t, n.disk.store.Size(), int64(quotaBytes/2), "the file itself has not shrunk")
}

// A negative quota is none, and without one etcd's default holds.
func TestQuotaOfStatus(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]int64{"--quota-backend-bytes=-1": -1, "--quota-backend-bytes=0": 2 << 30} {
		n := runNode(t, testConfig(t, t.TempDir(), arg))
		c := newCaller(t, n.direct)
		require.Equal(t, want, read[pb.StatusResponse](t, c.one(consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{})).GetDbSizeQuota())
		require.Zero(t, c.put("k", 1000).GetCode())
		n.stop()
	}
}

// The database's map holds twice the quota, so that the file has room beyond it.
func TestMapHoldsTwiceTheQuota(t *testing.T) {
	for flag, want := range map[int64]int{0: 10 << 30, 8 << 30: 16 << 30, 1: 10 << 30, -1: 256 << 30, math.MaxInt64: 1 << 47} {
		require.Equal(t, want, (&SpaceConfig{QuotaBytes: flag}).mapBytes(), flag)
	}
}

// A member whose disk is nearly full raises the alarm before its writes fail, leader or follower; with room again and the alarm disarmed
// all goes on.
func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	leader := leaderOf(t, members)
	follower := members[0]
	if follower == leader {
		follower = members[1]
	}
	put(t, members, "a")
	for _, full := range []*member3{follower, leader} {
		full.free.Store(1 << 20) // a segment of the log and no more
		c := newCaller(t, leaderOf(t, members).calls)
		require.Eventually(t, func() bool { return len(c.alarms()) == 1 }, 20*time.Second, 10*time.Millisecond)
		require.Equal(t, []uint64{full.node.memberID}, c.alarms())
		requireNoSpace(t, c.put("b", 1))
		read[pb.DeleteRangeResponse](t, c.one(consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("a")}))
		full.free.Store(1 << 40)
		require.Eventually(t, func() bool { return !full.node.space.DiskFull() }, 20*time.Second, 10*time.Millisecond)
		require.Equal(t, []uint64{full.node.memberID}, c.alarms(), "an operator disarms it")
		c.disarm(full.node.memberID)
		require.Zero(t, c.put("b", 1).GetCode())
	}
}

// The leader compacts the history by itself; all nodes follow.
func TestAutomaticCompaction(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--auto-compaction-retention=200ms")
	first := put(t, members, "a")
	require.Eventually(t, func() bool {
		put(t, members, "a")
		for _, m := range members {
			if view, err := m.node.machine.Current(); err == nil {
				compacted := view.KV.CompactRevision()
				view.Release()
				if compacted <= first {
					return false
				}
			}
		}
		return true
	}, 20*time.Second, 50*time.Millisecond)
}

// Defragment gives the free pages back and changes nothing else; the node goes on with the new file.
func TestDefragmentCall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := runNode(t, testConfig(t, dir))
	c := newCaller(t, n.direct)
	for range 100 {
		require.Zero(t, c.put("k", 50_000).GetCode())
	}
	st := func() *pb.StatusResponse {
		return read[pb.StatusResponse](t, c.one(consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{}))
	}
	require.Eventually(t, func() bool { return st().GetDbSize() > 2<<20 }, 10*time.Second, 10*time.Millisecond,
		"what is compacted before it is committed never comes to the file")
	last := read[pb.PutResponse](t, c.put("k", 1))
	read[pb.CompactionResponse](t, c.one(consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{
		Revision: last.GetHeader().GetRevision(), Physical: true,
	}))
	hash := func() *pb.HashKVResponse {
		return read[pb.HashKVResponse](t, c.one(consensusv1.Method_METHOD_HASH_KV, &pb.HashKVRequest{}))
	}
	before := hash()
	require.Greater(t, st().GetDbSize(), int64(2<<20))
	answer := c.one(consensusv1.Method_METHOD_DEFRAGMENT, &pb.DefragmentRequest{})
	require.Zero(t, answer.GetCode(), answer.GetMessage())
	require.Empty(t, answer.GetResponse(), "no header, as etcd's")
	require.Less(t, st().GetDbSize(), int64(1<<20))
	require.Equal(t, before.GetHash(), hash().GetHash())
	whole := read[pb.HashResponse](t, c.one(consensusv1.Method_METHOD_HASH, &pb.HashRequest{}))
	require.NotZero(t, whole.GetHash())
	require.Equal(t, last.GetHeader().GetRevision(), whole.GetHeader().GetRevision())
	require.Zero(t, c.put("k2", 5).GetCode())
	n.stop()

	n = runNode(t, testConfig(t, dir))
	c = newCaller(t, n.direct)
	require.EqualValues(t, 2, read[pb.RangeResponse](t, c.one(consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{
		Key: []byte("k"), RangeEnd: []byte("l"),
	})).GetCount())

	// Without room for a second copy it is refused, in words that help.
	n.cfg.diskFree = func() (int64, error) { return 10 << 20, nil }
	refused := c.one(consensusv1.Method_METHOD_DEFRAGMENT, &pb.DefragmentRequest{})
	require.Equal(t, codes.ResourceExhausted, codes.Code(refused.GetCode()))
	require.Contains(t, refused.GetMessage(), "make room on it")
}

// What cannot be downgraded to is refused in etcd's words where etcd refuses it. A target that the cluster version allows is valid, as in
// etcd; to go there is refused.
func TestDowngradeCall(t *testing.T) {
	t.Parallel()
	n := runNode(t, testConfig(t, t.TempDir()))
	c := newCaller(t, n.direct)
	for _, action := range []pb.DowngradeRequest_DowngradeAction{pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE} {
		for version, want := range map[string]error{
			"3.7.0": rpctypes.ErrGRPCInvalidDowngradeTargetVersion, "3.5.0": rpctypes.ErrGRPCInvalidDowngradeTargetVersion,
			"3.8": rpctypes.ErrGRPCInvalidDowngradeTargetVersion, "4.6.0": rpctypes.ErrGRPCInvalidDowngradeTargetVersion,
			"x": rpctypes.ErrGRPCWrongDowngradeVersionFormat, "": rpctypes.ErrGRPCWrongDowngradeVersionFormat,
		} {
			answer := c.one(consensusv1.Method_METHOD_DOWNGRADE, &pb.DowngradeRequest{Action: action, Version: version})
			require.Equal(t, want.Error(), status.Error(codes.Code(answer.GetCode()), answer.GetMessage()).Error(), version)
		}
	}
	for _, version := range []string{"3.6", "3.6.0", "3.6.4"} {
		valid := read[pb.DowngradeResponse](t, c.one(consensusv1.Method_METHOD_DOWNGRADE, &pb.DowngradeRequest{
			Action: pb.DowngradeRequest_VALIDATE, Version: version,
		}))
		require.Equal(t, "3.7", valid.GetVersion(), version)
		require.NotZero(t, valid.GetHeader().GetMemberId())
		answer := c.one(consensusv1.Method_METHOD_DOWNGRADE, &pb.DowngradeRequest{Action: pb.DowngradeRequest_ENABLE, Version: version})
		require.Equal(t, codes.Unimplemented, codes.Code(answer.GetCode()), version)
	}
	cancelled := read[pb.DowngradeResponse](t, c.one(consensusv1.Method_METHOD_DOWNGRADE, &pb.DowngradeRequest{Action: pb.DowngradeRequest_CANCEL}))
	require.Equal(t, "3.7", cancelled.GetVersion())
	require.NotZero(t, cancelled.GetHeader().GetMemberId())
}

// Flags that make no sense are refused in one line.
func TestSpaceFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--auto-compaction-retention=soon":  `--auto-compaction-retention: "soon" is no number and no duration such as 30m`,
		"--auto-compaction-retention=-1":    `--auto-compaction-retention: "-1" is no number and no duration such as 30m`,
		"--auto-compaction-mode=hourly":     "periodic, revision",
		"--compaction-sleep-interval=-10ms": "--compaction-sleep-interval is -10ms: it must not be negative",
		"--compaction-batch-limit=-1":       "compaction-batch-limit",
		"--quota-backend-bytes=2GB":         "quota-backend-bytes",
	} {
		cfg := NewConfig()
		set := config.NewSet(Program)
		cfg.DeclareMember(set)
		_, err := set.Parse(config.Source{Args: []string{"--name=n1", arg}})
		if err == nil {
			err = cfg.Finish()
		}
		require.ErrorContains(t, err, want, arg)
	}
}
