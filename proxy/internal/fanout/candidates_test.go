package fanout

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/proxy/internal/routing"
)

// Beside a node the node's own hub is taken, others only while it cannot be had, and what went to others comes back.
func TestTheOwnNodesHubIsPreferred(t *testing.T) {
	a, b := routing.Hub{Name: "a", Run: 1, Address: "a:1"}, routing.Hub{Name: "b", Run: 1, Address: "b:1"}
	h := NewHubs(HubsConfig{})
	split := &routing.Table{Hubs: []routing.Hub{a, b}}
	beside := &routing.Table{Own: "b:1", Hubs: []routing.Hub{a, b}}
	require.Equal(t, []routing.Hub{a, b}, h.candidates(split, routing.Hub{}))
	require.Equal(t, []routing.Hub{b}, h.candidates(beside, routing.Hub{}))
	require.Equal(t, []routing.Hub{a}, h.candidates(beside, b))

	left := map[string]int{}
	for _, hub := range []routing.Hub{a, b} {
		_, cancel := context.WithCancel(t.Context())
		h.links[hub] = newLink(h, hub, func() { left[hub.Name]++; cancel() })
	}
	require.False(t, h.sweep(split))
	require.Empty(t, left)
	h.avoid[b] = time.Now().Add(time.Hour)
	require.False(t, h.sweep(beside))
	require.Empty(t, left, "the other is better than none")
	delete(h.avoid, b)
	require.False(t, h.sweep(beside))
	require.Equal(t, map[string]int{"a": 1}, left)
}
