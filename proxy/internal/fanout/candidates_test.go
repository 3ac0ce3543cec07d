package fanout

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
)

// choices is a Hubs with a link to each of two hubs that nobody runs; what is heard of them is made up.
type choices struct {
	*Hubs
	a, b routing.Hub
	left map[string]int
}

func newChoices(ctx context.Context) *choices {
	c := &choices{
		Hubs: NewHubs(HubsConfig{Log: slog.New(slog.DiscardHandler)}), left: map[string]int{},
		a: routing.Hub{Name: "a", Run: 1, Address: "a:1"}, b: routing.Hub{Name: "b", Run: 1, Address: "b:1"},
	}
	for _, hub := range []routing.Hub{c.a, c.b} {
		_, cancel := context.WithCancel(ctx)
		c.links[hub] = newLink(c.Hubs, hub, func() { c.left[hub.Name]++; cancel() })
	}
	return c
}

// hears lets hubs say that they are at a revision and have nothing to tell.
func (c *choices) hears(revision int64, hubs ...routing.Hub) {
	for _, hub := range hubs {
		l := c.links[hub]
		l.heard.Store(max(1, int64(time.Since(l.began))))
		l.take(&watchv1.HubResponse{LiveFrom: revision, LiveTo: revision})
	}
}

// Beside a node the node's own hub is taken, others only while it cannot be had, and what went to others comes back.
func TestTheOwnNodesHubIsPreferred(t *testing.T) {
	c := newChoices(t.Context())
	a, b := c.a, c.b
	split := &routing.Table{Hubs: []routing.Hub{a, b}}
	beside := &routing.Table{Own: "b:1", Hubs: []routing.Hub{a, b}}
	require.Equal(t, []routing.Hub{a, b}, c.candidates(split, time.Now()), "before any was heard")
	require.Equal(t, []routing.Hub{b}, c.candidates(beside, time.Now()))
	c.hears(5, a)
	require.Equal(t, []routing.Hub{a}, c.candidates(split, time.Now()), "one that was heard goes before one that was not")
	c.hears(5, b)
	require.Equal(t, []routing.Hub{a, b}, c.candidates(split, time.Now()))

	require.False(t, c.sweep(split))
	require.Empty(t, c.left)
	c.avoid[b] = time.Now().Add(time.Hour)
	require.False(t, c.sweep(beside))
	require.Equal(t, []routing.Hub{a}, c.candidates(beside, time.Now()))
	require.Empty(t, c.left, "the other is better than none")
	delete(c.avoid, b)
	require.False(t, c.sweep(beside))
	require.Equal(t, map[string]int{"a": 1}, c.left)
}

// A hub that has nothing to tell though it is not where others have long been gets no watches until it is, and is better than none.
func TestAHubThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChoices(t.Context())
		table := &routing.Table{Hubs: []routing.Hub{c.a, c.b}}
		turn := func(a, b int64) []routing.Hub {
			time.Sleep(time.Second)
			c.hears(a, c.a)
			c.hears(b, c.b)
			c.sweep(table)
			return c.candidates(table, time.Now())
		}
		for r := range int64(6) {
			require.Len(t, turn(r+1, r), 2, "one is a little before the other")
		}
		for range 4 {
			require.Len(t, turn(9, 7), 2)
		}
		require.Equal(t, []routing.Hub{c.a}, turn(9, 7))
		require.Len(t, turn(9, 9), 2, "it caught up")
		c.know(20) // by a fence
		for range 6 {
			turn(9, 9)
		}
		require.Len(t, turn(9, 9), 2, "both are behind: better than none")
		require.Equal(t, []routing.Hub{c.b}, turn(9, 20))
		require.Empty(t, c.left, "their streams stay, to see when they are level again")
	})
}

// A hub that is silent gets no new watches.
func TestAHubThatIsMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChoices(t.Context())
		table := &routing.Table{Hubs: []routing.Hub{c.a, c.b}}
		c.hears(5, c.a, c.b)
		time.Sleep(muteAfter + time.Second)
		c.hears(5, c.a)
		require.Equal(t, []routing.Hub{c.a}, c.candidates(table, time.Now()))
		c.hears(5, c.b)
		require.Len(t, c.candidates(table, time.Now()), 2)
	})
}
