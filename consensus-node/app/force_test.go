package app

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// With the majority gone, one member makes a cluster of its own: it keeps keys, leases and ids, forgets the others for ever, drops what
// was not committed, and no lease-service of before has a say.
func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	for i := range 20 {
		put(t, members, fmt.Sprintf("k%d", i))
	}
	awaitNames(t, members)
	leader := leaderOf(t, members)
	c := newCaller(t, leader.calls)
	lease := read[pb.LeaseGrantResponse](t, c.do(call(t, consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: 600}))[0]).GetID()
	instance := &feedv1.Instance{Name: "owner", Incarnation: 7, Address: "127.0.0.1:1"}
	beat, err := leader.node.server.LeaseHeartbeat(t.Context(), &consensusv1.LeaseHeartbeatRequest{Instance: instance})
	require.NoError(t, err)
	last := put(t, members, "last")
	clusterID, memberID := leader.node.Identity()
	var ids []uint64
	for _, m := range members {
		if m != leader {
			ids = append(ids, m.node.memberID)
			leader.node.transport.RemovePeer(m.node.memberID)
		}
	}
	_, _ = leader.node.raft.Propose(t.Context(), []byte("never committed"))
	for _, m := range members {
		require.NoError(t, m.stop())
	}

	forced := []*member3{leader}
	for range 2 { // again is no harm
		leader.cfg.ForceNewCluster = true
		leader.start(listen(t, leader.address))
		require.Equal(t, leader, leaderOf(t, forced))
		list := read[pb.MemberListResponse](t, askLeader(t, forced, call(t, consensusv1.Method_METHOD_MEMBER_LIST, &pb.MemberListRequest{Linearizable: true})))
		require.Len(t, list.GetMembers(), 1)
		require.Equal(t, leader.cfg.Name, list.GetMembers()[0].GetName())
		gotCluster, gotMember := leader.node.Identity()
		require.Equal(t, clusterID, gotCluster)
		require.Equal(t, memberID, gotMember)
		for _, id := range ids {
			require.True(t, leader.node.isRemoved(id))
		}
		got := read[pb.RangeResponse](t, askLeader(t, forced, call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})))
		require.EqualValues(t, 21, got.GetCount())
		require.Equal(t, last, got.GetHeader().GetRevision())

		// The former owner may not expire its lease under the epoch that it knew.
		expired, err := leader.node.server.ExpireLeases(t.Context(), &consensusv1.ExpireLeasesRequest{
			Ids: []int64{lease}, Epoch: beat.GetView().GetEpoch(), Name: instance.GetName(), Incarnation: instance.GetIncarnation(),
		})
		require.NoError(t, err)
		require.Equal(t, []consensusv1.ExpireOutcome{consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER}, expired.GetOutcomes())
		require.NoError(t, leader.stop())
	}

	// Without the flag it goes on, writes, and grows again; a former member is told that it was removed.
	leader.cfg.ForceNewCluster = false
	leader.start(listen(t, leader.address))
	put(t, forced, "after")
	added, _ := joiner(t, forced, "n4", false)
	added.join()
	forced = append(forced, added)
	equalHashes(t, forced, put(t, forced, "both"))
	for _, m := range members {
		if m != leader {
			m.start(listen(t, m.address))
			require.Equal(t, failure.ExitRemoved, failure.ExitCode(m.awaitEnd()))
		}
	}
}

// A learner that is all that is left becomes the voter; a member that was removed cannot be it, and an empty directory begins as ever.
func TestForceNewClusterOfALearnerAndOfNobody(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	last := put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	learner, _ := joiner(t, members, "n4", true)
	learner.join()
	equalHashes(t, append(members, learner), last)
	require.Eventually(t, learner.node.Listed, 20*time.Second, 5*time.Millisecond)
	for _, m := range append(members, learner) {
		require.NoError(t, m.stop())
	}
	learner.cfg.ForceNewCluster = true
	learner.start(listen(t, learner.address))
	require.Greater(t, put(t, []*member3{learner}, "b"), last)

	fresh := testConfig(t, t.TempDir(), "--force-new-cluster")
	runNode(t, fresh)
}
