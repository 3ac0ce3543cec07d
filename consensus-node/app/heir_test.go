package app

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/liveness"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// A lease-service that ended with the leader, as in a standalone process, is removed after the removal time: the next leader does not begin
// to count when it is elected. Nor does it remove the instance any earlier than its last confirmed heartbeat allows.
func TestAnHeirCountsFromTheLastThatWasConfirmed(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--heartbeat-interval=100", "--election-timeout=1000")
	put(t, members, "a")
	awaitNames(t, members)
	old := leaderOf(t, members)
	others := slices.DeleteFunc(slices.Clone(members), func(m *member3) bool { return m == old })
	instance := &feedv1.Instance{Name: "lease1", Incarnation: 1, Address: "127.0.0.1:1"}
	beat := func() bool {
		response, err := consensusv1.NewConsensusClient(old.calls).LeaseHeartbeat(t.Context(), &consensusv1.LeaseHeartbeatRequest{Instance: instance})
		return err == nil && len(response.GetView().GetInstances()) == 1
	}
	require.Eventually(t, beat, 5*time.Second, 10*time.Millisecond)
	for _, m := range others {
		require.Eventually(t, func() bool { return len(instances(t, m)) == 1 }, 5*time.Second, time.Millisecond)
	}
	last := time.Now()
	require.True(t, beat())
	for _, m := range others { // the leader is heard no more
		old.node.transport.RemovePeer(m.node.memberID)
	}
	var next *member3
	require.Eventually(t, func() bool {
		i := slices.IndexFunc(others, func(m *member3) bool { return m.node.raft.Status().Leader == m.node.memberID })
		if i >= 0 {
			next = others[i]
		}
		return i >= 0
	}, 20*time.Second, time.Millisecond)
	led := time.Now()
	require.Eventually(t, func() bool { return len(instances(t, next)) == 0 }, 20*time.Second, time.Millisecond)
	require.Less(t, time.Since(led), liveness.Removal)
	require.Greater(t, time.Since(last), liveness.Removal+liveness.Margin)
}

// instances are those of the view that a member has applied.
func instances(t *testing.T, m *member3) []*feedv1.Instance {
	t.Helper()
	view, err := m.node.machine.Current()
	require.NoError(t, err)
	defer view.Release()
	return view.Leases.Cluster().GetInstances()
}
