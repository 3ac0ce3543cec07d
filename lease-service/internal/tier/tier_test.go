package tier

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/services/direct"
)

// idle is a connection that nobody calls.
type idle struct{ grpc.ClientConnInterface }

func (idle) Close() error { return nil }

func newTier(dial func(string) (Conn, error)) *Tier {
	return New(Config{
		Endpoints: []string{"http://a:1", "http://b:1"}, Dial: dial, Clock: clock.Boottime{}, Logger: slog.New(slog.DiscardHandler),
		Announcement: &consensusv1.Announcement{Name: "lease1", Run: 7},
	})
}

func topology(term, leader uint64, members ...string) *consensusv1.Topology {
	t := &consensusv1.Topology{ClusterId: 9, Term: term, Leader: leader}
	for i, host := range members {
		t.Members = append(t.Members, &consensusv1.Member{Id: uint64(i + 1), PeerUrls: []string{"http://" + host + ":1"}})
	}
	return t
}

func preferred(t *testing.T, tier *Tier) string {
	t.Helper()
	node, err := tier.Node()
	require.NoError(t, err)
	return node.Address
}

func TestLeaderIsAsked(t *testing.T) {
	tier := newTier(func(string) (Conn, error) { return idle{}, nil })
	require.Equal(t, "a:1", preferred(t, tier), "the first endpoint while nothing is known")
	require.NoError(t, tier.heard("a:1", topology(3, 3, "a", "b", "c")))
	require.Equal(t, "c:1", preferred(t, tier))
	require.NoError(t, tier.heard("a:1", topology(2, 1, "a", "b", "c")))
	require.Equal(t, "c:1", preferred(t, tier), "an older term tells nothing")

	node, err := tier.Node()
	require.NoError(t, err)
	tier.Blame(node)
	require.Equal(t, "a:1", preferred(t, tier))
	tier.Blame(node)
	require.Equal(t, "a:1", preferred(t, tier), "blamed once is enough")
	require.NoError(t, tier.heard("a:1", topology(3, 3, "a", "b", "c")))
	require.Equal(t, "a:1", preferred(t, tier), "the hint that misled is no news")
	require.NoError(t, tier.heard("a:1", topology(4, 2, "a", "b")))
	require.Equal(t, "b:1", preferred(t, tier))

	other := topology(9, 1, "x")
	other.ClusterId = 10
	require.ErrorIs(t, tier.heard("a:1", other), errOtherCluster)
	require.Equal(t, "b:1", preferred(t, tier))
	tier.Close()
	_, err = tier.Node()
	require.ErrorIs(t, err, ErrNoNode)
}

// The tier follows the members until none is left that it was started with, and asks those no more; a node that has just joined, and
// tells the list as it was once, changes nothing.
func TestMembersAreReplaced(t *testing.T) {
	tier := newTier(func(string) (Conn, error) { return idle{}, nil })
	said := func(at string, me, version uint64, told *consensusv1.Topology) {
		t.Helper()
		told.MemberId, told.MembersVersion = me, version
		require.NoError(t, tier.heard(at, told))
	}
	said("a:1", 1, 0, topology(1, 0))
	require.Equal(t, []string{"a:1", "b:1"}, tier.addresses, "a node that has not begun knows no members")
	said("a:1", 1, 4, topology(2, 1, "a", "b", "c", "d"))
	said("c:1", 3, 4, topology(2, 1, "a", "b", "c", "d"))
	require.Equal(t, []string{"a:1", "b:1", "c:1", "d:1"}, tier.addresses)
	replaced := topology(3, 3, "", "", "c", "d")
	replaced.Members = replaced.Members[2:]
	said("c:1", 3, 6, replaced)
	require.Equal(t, []string{"c:1", "d:1"}, tier.addresses)
	require.Equal(t, "c:1", preferred(t, tier))
	tier.lost("a:1")
	said("d:1", 4, 1, topology(4, 0, "a"))
	require.Equal(t, []string{"c:1", "d:1"}, tier.addresses, "a new member replays an old list")
	require.Equal(t, "c:1", preferred(t, tier))
	tier.lost("c:1")
	tier.lost("d:1")
	require.Equal(t, []string{"a:1", "b:1", "c:1", "d:1"}, tier.addresses, "no stream lives: anything may be true")

	// Whoever is asked is one of them.
	tier = newTier(func(string) (Conn, error) { return idle{}, nil })
	gone := topology(1, 0, "", "", "c")
	gone.Members = gone.Members[2:]
	said("a:1", 1, 1, gone)
	require.Equal(t, "c:1", preferred(t, tier))
}

// joins is a node that is joined and tells one topology.
type joins struct {
	consensusv1.UnimplementedConsensusServer
	mu       sync.Mutex
	joined   map[string]int
	topology *consensusv1.Topology
}

func (j *joins) Join(stream consensusv1.Consensus_JoinServer) error {
	announcement, err := stream.Recv()
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.joined[announcement.GetName()]++
	told := j.topology
	j.mu.Unlock()
	if err := stream.Send(told); err != nil {
		return err
	}
	<-stream.Context().Done()
	return nil
}

// The tier announces the instance to every member, those that it learns of too, and again to one that comes back.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &joins{joined: map[string]int{}, topology: topology(1, 1, "a", "b", "c")}
		served := direct.New("node")
		consensusv1.RegisterConsensusServer(served, node)
		var mu sync.Mutex
		reached := map[string]bool{"a:1": true}
		tier := newTier(func(address string) (Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if !reached[address] {
				return nil, ErrNoNode
			}
			return idle{served}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = tier.Run(ctx) })
		synctest.Wait()
		cluster, _ := tier.Cluster()
		require.EqualValues(t, 9, cluster)
		mu.Lock()
		reached["b:1"], reached["c:1"] = true, true
		mu.Unlock()
		time.Sleep(2 * rejoinMost)
		node.mu.Lock()
		require.Equal(t, map[string]int{"lease1": 3}, node.joined)
		node.mu.Unlock()
		cancel()
		running.Wait()
		served.Close()
		tier.Close()
	})
}
