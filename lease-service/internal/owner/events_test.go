package owner

import (
	"slices"
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
	for id := range recentMax {
		remember(id + 1)
	}
	place := &c.recent.events[0]
	for id := recentMax; id < many; id++ {
		remember(id + 1)
	}
	require.Same(t, place, &c.recent.events[0], "nothing moves")
	left := slices.Collect(c.recent.all())
	require.Len(t, left, recentMax)
	for i, event := range left {
		require.EqualValues(t, many-recentMax+1+i, event.Lease)
	}
}
