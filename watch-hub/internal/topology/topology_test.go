package topology

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// told is what member me says; a member is reached at its own name.
func told(me, leader, term, version uint64, members ...string) *consensusv1.Topology {
	t := &consensusv1.Topology{ClusterId: 9, MemberId: me, Leader: leader, Term: term, MembersVersion: version}
	for _, name := range members {
		t.Members = append(t.Members, &consensusv1.Member{Id: uint64(name[0] - 'a' + 1), PeerUrls: []string{"http://" + name + ":1"}})
	}
	return t
}

// The hub follows the members until none is left that it was started with, and joins those no more. A node that has just joined, and
// tells the list as it was once, changes nothing.
func TestMembersAreReplaced(t *testing.T) {
	f := New(Config{Endpoints: []string{"http://b:1", "a:1"}, Log: slog.New(slog.DiscardHandler)})
	nodes := func() []string {
		state, _ := f.State()
		return state.Nodes
	}
	require.Equal(t, []string{"b:1", "a:1"}, nodes())
	require.NoError(t, f.heard("a:1", told(1, 0, 1, 0)))
	require.Equal(t, []string{"b:1", "a:1"}, nodes(), "a node that has not begun knows no members")
	require.NoError(t, f.heard("a:1", told(1, 1, 2, 2, "a", "b")))
	require.NoError(t, f.heard("b:1", told(2, 1, 2, 3, "a", "b", "c")))
	require.Equal(t, []string{"b:1", "a:1", "c:1"}, nodes(), "configured ones first")
	require.NoError(t, f.heard("c:1", told(3, 1, 2, 1, "a")))
	require.NoError(t, f.heard("a:1", told(1, 3, 3, 3, "a", "b", "c")))
	require.Equal(t, []string{"b:1", "a:1", "c:1"}, nodes())
	state, _ := f.State()
	require.Equal(t, "c:1", state.Leader)

	require.NoError(t, f.heard("c:1", told(3, 3, 3, 6, "c", "d")))
	require.Equal(t, []string{"c:1", "d:1"}, nodes(), "none is left of those configured")
	f.lost("a:1")
	f.lost("b:1")
	require.NoError(t, f.heard("d:1", told(4, 0, 4, 1, "a")))
	require.Equal(t, []string{"c:1", "d:1"}, nodes(), "a new member replays an old list")
	f.lost("d:1")
	f.lost("c:1")
	require.Equal(t, []string{"b:1", "a:1", "c:1", "d:1"}, nodes(), "nobody is joined: anything may be true")
}

// An endpoint that is another name of a member is that member while it is joined.
func TestAnEndpointMayBeAnotherName(t *testing.T) {
	f := New(Config{Endpoints: []string{"alias:1"}, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, f.heard("alias:1", told(1, 1, 2, 2, "a", "b")))
	state, _ := f.State()
	require.Equal(t, []string{"alias:1", "b:1"}, state.Nodes)
	require.Equal(t, "alias:1", state.Leader)
}
