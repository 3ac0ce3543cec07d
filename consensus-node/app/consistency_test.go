package app

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/consistency"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// falsify changes the value of a key in the database of a stopped node, as valid bbolt pages.
func falsify(t *testing.T, path, key string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	changed := 0
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		bucket, found := tx.Bucket([]byte("key")), []byte(nil)
		var kv mvccpb.KeyValue
		require.NoError(t, bucket.ForEach(func(k, v []byte) error {
			if err := proto.Unmarshal(v, &kv); err != nil || string(kv.Key) != key {
				return err
			}
			found = bytes.Clone(k)
			return nil
		}))
		require.NotNil(t, found, "the key is not in the database")
		require.NoError(t, proto.Unmarshal(bucket.Get(found), &kv))
		kv.Value = []byte("flipped")
		data, err := proto.Marshal(&kv)
		require.NoError(t, err)
		changed++
		return bucket.Put(found, data)
	}))
	require.Equal(t, 1, changed)
	require.NoError(t, db.Close())
}

// differing stops a follower and changes a value under it.
func differing(t *testing.T, members []*member3) (wrong *member3) {
	t.Helper()
	put(t, members, "k")
	last := put(t, members, "l")
	awaitNames(t, members)
	equalHashes(t, members, last)
	leader := leaderOf(t, members)
	for _, m := range members {
		if m != leader {
			wrong = m
		}
	}
	require.NoError(t, wrong.stop())
	falsify(t, wrong.cfg.databasePath(), "k")
	return wrong
}

// The member whose data differ from a majority's gets the alarm, writes end, and they go on when the alarm is taken back.
func TestTheMemberThatDiffersIsNamed(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	wrong := differing(t, members)
	leader := leaderOf(t, members)
	checker := consistency.New(peerHashes{leader.node}, slog.New(slog.DiscardHandler))
	require.NoError(t, checker.Compare(t.Context()), "a member that is down is passed over")
	require.Empty(t, leader.node.machine.Alarms())

	wrong.start(listen(t, wrong.address))
	require.Eventually(t, func() bool {
		leader = leaderOf(t, members)
		checker = consistency.New(peerHashes{leader.node}, slog.New(slog.DiscardHandler))
		if err := checker.Compare(t.Context()); err != nil {
			return false
		}
		return len(leader.node.machine.Alarms()) > 0
	}, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, []*pb.AlarmMember{{MemberID: wrong.node.memberID, Alarm: pb.AlarmType_CORRUPT}},
		leader.node.machine.Alarms().Get(pb.AlarmType_NONE))
}

// A write under the alarm is refused before it costs an entry of the log.
func TestABarredWriteIsNotProposed(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	require.Eventually(t, node.Listed, 20*time.Second, 5*time.Millisecond) // from here on the node writes nothing by itself
	c := newCaller(t, node.direct)
	alarm := func(action pb.AlarmRequest_AlarmAction) {
		request := &pb.AlarmRequest{Action: action, MemberID: 5, Alarm: pb.AlarmType_CORRUPT}
		read[pb.AlarmResponse](t, c.do(call(t, consensusv1.Method_METHOD_ALARM, request))[0])
	}
	alarm(pb.AlarmRequest_ACTIVATE)
	before := node.raft.Status().Commit
	for method, request := range map[consensusv1.Method]proto.Message{
		consensusv1.Method_METHOD_PUT:          &pb.PutRequest{Key: []byte("k")},
		consensusv1.Method_METHOD_LEASE_REVOKE: &pb.LeaseRevokeRequest{ID: 1},
	} {
		answer := c.do(call(t, method, request))[0]
		require.Equal(t, rpctypes.ErrGRPCCorrupt.Error(), status.Error(codes.Code(answer.GetCode()), answer.GetMessage()).Error())
		require.False(t, answer.GetNotProposed(), "no other node may be asked")
	}
	require.Equal(t, before, node.raft.Status().Commit)
	alarm(pb.AlarmRequest_DEACTIVATE)
	read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
}

// The same is found at a compaction, by all members' hashes at the compacted revision.
func TestTheCompactHashesDiffer(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	wrong := differing(t, members)
	wrong.start(listen(t, wrong.address))
	revision := put(t, members, "m")
	compact(t, members, revision)
	require.Eventually(t, func() bool {
		leader := leaderOf(t, members)
		checker := consistency.New(peerHashes{leader.node}, slog.New(slog.DiscardHandler))
		if err := checker.Compacted(t.Context()); err != nil {
			return false
		}
		return peerHashes{leader.node}.Raised(wrong.node.memberID)
	}, 20*time.Second, 50*time.Millisecond)
}

// With the gate open a member that differs does not start: it has not joined raft then, and the exit code is that of bad storage.
func TestTheInitialCheckStopsTheStart(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	wrong := differing(t, members)
	start := func(gates string) error {
		require.NoError(t, wrong.cfg.Consistency.Gates.Set(gates))
		node, err := Open(wrong.cfg, discarding())
		require.NoError(t, err)
		defer func() { require.NoError(t, node.Close()) }()
		return node.initialCheck(t.Context())
	}
	require.NoError(t, start(""))
	err := start(gateInitialCheck + "=true")
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
	require.NotContains(t, err.Error(), "\n")
	difference, ok := errors.AsType[*consistency.DifferenceError](err)
	require.True(t, ok, err)
	require.Len(t, difference.Others, 2)
}
