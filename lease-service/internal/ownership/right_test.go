package ownership_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// A right lasts for the removal time less what the setting gives up of it.
func TestDriftShortensTheRight(t *testing.T) {
	self := ownership.Identity{Name: "a", Incarnation: 1}
	view := &feedv1.View{Epoch: 1, Instances: []*feedv1.Instance{{Name: "a", Incarnation: 1}}}
	const sent, removal = 5 * time.Second, 2 * time.Second
	for drift, lasts := range map[ownership.Drift]time.Duration{
		1: 1980 * time.Millisecond, ownership.DriftDefault: 1800 * time.Millisecond, 50: time.Second,
	} {
		right := ownership.NewRight(drift)
		right.Confirm(self, ownership.Confirmation{Sent: sent, View: view, Removal: removal})
		require.True(t, right.Holds(sent+lasts-1, 1))
		require.False(t, right.Holds(sent+lasts, 1))
	}
}
