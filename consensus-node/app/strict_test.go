package app

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// A change that would put the quorum at risk is refused: while a member is down, and when too many were added that never started. A member
// that is down may go.
func TestStrictReconfiguration(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	adding := func(port string, learner bool) *consensusv1.Call {
		return call(t, consensusv1.Method_METHOD_MEMBER_ADD, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:" + port}, IsLearner: learner})
	}
	removing := func(id uint64) *consensusv1.Call {
		return call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: id})
	}
	refused := func(c *consensusv1.Call, code codes.Code, text string) {
		t.Helper()
		answer := askLeader(t, members, c)
		require.Equal(t, code, codes.Code(answer.GetCode()), answer.GetMessage())
		require.Equal(t, text, answer.GetMessage())
	}
	const unhealthy, notStarted = "etcdserver: unhealthy cluster", "etcdserver: re-configuration failed due to not enough started members"
	leader := leaderOf(t, members)
	awaitConnected(t, members, 2)
	var added []uint64
	for _, port := range []string{"1", "2"} {
		added = append(added, change[pb.MemberAddResponse](t, members, adding(port, false)).GetMember().GetID())
	}
	refused(adding("3", false), codes.Unknown, notStarted)
	refused(removing(leader.node.memberID), codes.Unknown, notStarted)
	for _, id := range added { // they are down
		change[pb.MemberRemoveResponse](t, members, removing(id))
	}

	var down *member3
	for _, m := range members {
		if m != leader {
			down = m
		}
	}
	require.NoError(t, down.stop())
	require.Eventually(t, func() bool { return leader.node.transport.ActiveSince(down.node.memberID).IsZero() }, 20*time.Second, 5*time.Millisecond)
	refused(adding("1", false), codes.Unavailable, unhealthy)
	refused(removing(leader.node.memberID), codes.Unavailable, unhealthy)
	require.Len(t, change[pb.MemberRemoveResponse](t, members, removing(down.node.memberID)).GetMembers(), 2)
}

// Members count as connected only after a while.
func TestMembersMustHaveBeenConnectedForAWhile(t *testing.T) {
	t.Parallel()
	members := newClusterWith(t, func(cfg *Config) { cfg.healthInterval = time.Hour })
	put(t, members, "a")
	for _, c := range []*consensusv1.Call{
		call(t, consensusv1.Method_METHOD_MEMBER_ADD, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}}),
		call(t, consensusv1.Method_METHOD_MEMBER_ADD, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}),
		call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: members[0].node.memberID}),
	} {
		require.Eventually(t, func() bool { // a member that has not connected at all may be removed, so wait
			leader, up := leaderOf(t, members), 0
			for _, m := range members {
				if !leader.node.transport.ActiveSince(m.node.memberID).IsZero() {
					up++
				}
			}
			return up == 2
		}, 20*time.Second, 5*time.Millisecond)
		require.Equal(t, "etcdserver: unhealthy cluster", askLeader(t, members, c).GetMessage())
	}
}

// A change that comes right after an election does not come too early: raft refuses it until whatever was on its way is applied, and the leader
// tries again.
func TestAChangeRightAfterAnElection(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--election-timeout=2000")
	put(t, members, "a")
	awaitNames(t, members)
	for range 6 {
		old := leaderOf(t, members)
		next := members[0]
		if next == old {
			next = members[1]
		}
		update := call(t, consensusv1.Method_METHOD_MEMBER_UPDATE, &pb.MemberUpdateRequest{
			ID: next.node.memberID, PeerURLs: []string{"http://" + next.address},
		})
		c := newCaller(t, next.calls)
		if err := old.node.raft.TransferLeader(t.Context(), next.node.memberID); err != nil {
			continue // a busy machine; the next one may do
		}
		for led, changed := next.node.raft.Leadership(); led.Leader != next.node.memberID; led, changed = next.node.raft.Leadership() {
			<-changed
		}
		read[pb.MemberUpdateResponse](t, c.do(update)[0])
	}
}
