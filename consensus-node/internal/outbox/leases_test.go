package outbox_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// A follower of leases alone hears of each change of a lease, and otherwise as often as a heartbeat comes, whatever is written.
func TestLeaseFollowersHearOfLeases(t *testing.T) {
	ring := outbox.NewRing(outbox.State{Head: 1}, 1<<20)
	cursor := ring.Cursor(speaker(), 1<<10)
	var leases outbox.Leases
	now := time.Unix(1000, 0)
	head, sequence := int64(1), uint64(0)
	say := func(revs int64, changes ...*feedv1.LeaseChange) *feedv1.Message {
		now = now.Add(time.Millisecond)
		ring.Append(outbox.State{Head: head + revs, LeaseSequence: sequence + uint64(len(changes))},
			revisions(head+1, head+revs, 10), changes)
		head, sequence = head+revs, sequence+uint64(len(changes))
		m, _ := cursor.Next()
		require.NotNil(t, m)
		return leases.Of(m, now)
	}
	require.NotNil(t, say(1), "the first thing said")
	told, last := 0, now
	for range 1000 {
		if m := say(1); m != nil {
			told++
			require.Empty(t, m.GetRevisions())
			require.Equal(t, head, m.GetHeadRevision())
			require.Equal(t, m.GetPreviousRevision(), m.GetLastRevision())
			require.LessOrEqual(t, now.Sub(last), outbox.HeartbeatInterval)
			last = now
		}
	}
	require.LessOrEqual(t, told, 20, "puts alone are no news")
	for i := range uint64(5) {
		m := say(1, &feedv1.LeaseChange{Sequence: i + 1})
		require.NotNil(t, m, "a change of a lease goes at once")
		require.Len(t, m.GetLeaseChanges(), 1)
		require.Equal(t, i, m.GetPreviousLeaseSequence())
		require.Equal(t, i+1, m.GetLeaseSequence())
	}
	ring.Reset(outbox.State{Head: 5000, LeaseSequence: 70})
	m, _ := cursor.Next()
	reset := leases.Of(m, now)
	require.NotNil(t, reset, "a jump goes at once")
	require.True(t, reset.GetReset_())
	require.Equal(t, uint64(70), reset.GetLeaseSequence())
	for range 100 {
		now = now.Add(outbox.HeartbeatInterval - time.Millisecond)
		require.NotNil(t, leases.Of(cursor.Heartbeat(), now), "each heartbeat is one for leases too")
	}
}

// A follower of keys alone hears of each revision without the changes of leases beside it, and of those alone as seldom as a heartbeat comes.
func TestKeyFollowersHearOfKeys(t *testing.T) {
	ring := outbox.NewRing(outbox.State{Head: 1}, 1<<20)
	cursor := ring.Cursor(speaker(), 1<<10)
	var keys outbox.Keys
	now := time.Unix(1000, 0)
	head, sequence := int64(1), uint64(0)
	say := func(revs int64, leases uint64) *feedv1.Message {
		now = now.Add(time.Millisecond)
		var changes []*feedv1.LeaseChange
		for range leases {
			sequence++
			changes = append(changes, &feedv1.LeaseChange{Sequence: sequence})
		}
		ring.Append(outbox.State{Head: head + revs, LeaseSequence: sequence}, revisions(head+1, head+revs, 10), changes)
		head += revs
		m, _ := cursor.Next()
		require.NotNil(t, m)
		return keys.Of(m, now)
	}
	require.NotNil(t, say(0, 1), "the first thing said")
	told, last := 0, now
	for range 1000 {
		if m := say(0, 1); m != nil {
			told++
			require.Empty(t, m.GetLeaseChanges())
			require.Equal(t, sequence, m.GetLeaseSequence())
			require.Equal(t, sequence, m.GetPreviousLeaseSequence())
			require.LessOrEqual(t, now.Sub(last), outbox.HeartbeatInterval)
			last = now
		}
	}
	require.LessOrEqual(t, told, 20, "leases alone are no news")
	for range 5 {
		m := say(2, 3)
		require.NotNil(t, m, "a revision goes at once")
		require.Len(t, m.GetRevisions(), 2)
		require.Equal(t, head-2, m.GetPreviousRevision())
		require.Equal(t, head, m.GetLastRevision())
		require.Empty(t, m.GetLeaseChanges())
	}
	ring.Reset(outbox.State{Head: 5000, LeaseSequence: 70})
	m, _ := cursor.Next()
	reset := keys.Of(m, now)
	require.NotNil(t, reset, "a jump goes at once")
	require.True(t, reset.GetReset_())
	for range 100 {
		now = now.Add(outbox.HeartbeatInterval - time.Millisecond)
		require.NotNil(t, keys.Of(cursor.Heartbeat(), now), "each heartbeat is one for keys too")
	}
}
