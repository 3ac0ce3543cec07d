package owner

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Many leases of others end at once: what is remembered of them is bounded, and each costs the same, however many came before.
func TestEventsOfOthersAreRememberedCheaply(t *testing.T) {
	c := New(&feedv1.Instance{Name: "self", Incarnation: 1}, 0, 0)
	c.history.Adopt(0, &feedv1.View{Epoch: 1, Instances: []*feedv1.Instance{{Name: "other", Incarnation: 2}}})
	remember := func(id int) { c.remember(time.Second, Event{Lease: int64(id)}) }
	const many = 100 * recentMax
	moved := 0
	for id := range many {
		var last *recentEvent
		if n := len(c.recent); n > 0 {
			last = &c.recent[n-1]
		}
		remember(id + 1)
		if n := len(c.recent); n > 1 && last != &c.recent[n-2] {
			moved++
		}
	}
	require.Less(t, moved, many/100)
	require.Less(t, cap(c.recent), 2*recentMax)
	require.Len(t, c.recent, recentMax)
	require.EqualValues(t, many, c.recent[recentMax-1].Lease)
	require.EqualValues(t, many-recentMax+1, c.recent[0].Lease)
	c.remember(time.Second+recentFor+1, Event{Lease: 1})
	require.Len(t, c.recent, 1, "what is old is forgotten")
}
