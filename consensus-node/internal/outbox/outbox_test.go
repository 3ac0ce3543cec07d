package outbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

func speaker() outbox.Speaker {
	return outbox.Speaker{
		ClusterID: 7, MemberID: 1, Run: 9,
		Leadership: func() outbox.Leadership { return outbox.Leadership{Term: 2, Leader: 1} },
	}
}

func revisions(from, to int64, bytes int) []*feedv1.Revision {
	var list []*feedv1.Revision
	for r := from; r <= to; r++ {
		list = append(list, &feedv1.Revision{Revision: r, Events: []*feedv1.Event{{Key: []byte("k"), Kv: make([]byte, bytes)}}})
	}
	return list
}

func TestCursorGivesContiguousIntervals(t *testing.T) {
	ring := outbox.NewRing(outbox.State{Head: 10}, 1<<20)
	cursor := ring.Cursor(speaker(), 250)
	message, changed := cursor.Next()
	require.Nil(t, message)
	ring.Append(outbox.State{Head: 15, Compact: 3}, revisions(11, 15, 90), nil)
	<-changed
	position := int64(10)
	for position < 15 {
		message, _ = cursor.Next()
		require.NotNil(t, message)
		require.Equal(t, position, message.GetPreviousRevision())
		require.Len(t, message.GetRevisions(), int(message.GetLastRevision()-position))
		require.LessOrEqual(t, len(message.GetRevisions()), 2)
		require.EqualValues(t, 15, message.GetHeadRevision())
		require.EqualValues(t, 3, message.GetCompactRevision())
		require.True(t, message.GetHasLeader())
		position = message.GetLastRevision()
	}
	message, _ = cursor.Next()
	require.Nil(t, message)
}

func TestCursorBehindTheRingIsToldWithoutBody(t *testing.T) {
	ring := outbox.NewRing(outbox.State{}, 500)
	cursor := ring.Cursor(speaker(), 10_000)
	ring.Append(outbox.State{Head: 100}, revisions(1, 100, 90), nil)
	from, to := ring.Span()
	require.Greater(t, from, int64(90))
	require.EqualValues(t, 100, to)
	message, _ := cursor.Next()
	require.True(t, message.GetBodyLess())
	require.EqualValues(t, 0, message.GetPreviousRevision())
	require.Equal(t, from, message.GetLastRevision())
	message, _ = cursor.Next()
	require.Len(t, message.GetRevisions(), int(to-from))
	_, ok := ring.After(from-1, 1000)
	require.False(t, ok)
}

func TestLargeRevisionIsAnnouncedAlone(t *testing.T) {
	ring := outbox.NewRing(outbox.State{}, 1<<20)
	cursor := ring.Cursor(speaker(), 100)
	ring.Append(outbox.State{Head: 1}, revisions(1, 1, 5000), nil)
	ring.Append(outbox.State{Head: 2}, revisions(2, 2, 10), nil)
	message, _ := cursor.Next()
	require.True(t, message.GetBodyLess())
	require.EqualValues(t, 1, message.GetLastRevision())
	message, _ = cursor.Next()
	require.Len(t, message.GetRevisions(), 1)
}

func TestLeaseSequenceIsGapFreeOrShowsItsHole(t *testing.T) {
	ring := outbox.NewRing(outbox.State{LeaseSequence: 4}, 1000)
	cursor := ring.Cursor(speaker(), 1000)
	ring.Append(outbox.State{LeaseSequence: 6}, nil, []*feedv1.LeaseChange{{Sequence: 5}, {Sequence: 6}})
	message, _ := cursor.Next()
	require.EqualValues(t, 4, message.GetPreviousLeaseSequence())
	require.EqualValues(t, 6, message.GetLeaseSequence())
	require.Len(t, message.GetLeaseChanges(), 2)

	const many = 1<<16 + 10
	changes := make([]*feedv1.LeaseChange, many)
	for i := range changes {
		changes[i] = &feedv1.LeaseChange{Sequence: 7 + uint64(i)}
	}
	ring.Append(outbox.State{LeaseSequence: 6 + many}, nil, changes)
	message, _ = cursor.Next()
	require.EqualValues(t, 16, message.GetPreviousLeaseSequence(), "the hole (6, 16] shows")
	require.EqualValues(t, 17, message.GetLeaseChanges()[0].GetSequence())
	// The rest comes in messages that a bus can carry, without a gap.
	for position := uint64(16); ; {
		require.Equal(t, position, message.GetPreviousLeaseSequence())
		require.LessOrEqual(t, len(message.GetLeaseChanges()), 4096)
		require.Equal(t, position+uint64(len(message.GetLeaseChanges())), message.GetLeaseSequence())
		position = message.GetLeaseSequence()
		if message, _ = cursor.Next(); message == nil {
			require.EqualValues(t, 6+many, position)
			break
		}
	}
}

func TestResetComesBeforeAnythingElse(t *testing.T) {
	ring := outbox.NewRing(outbox.State{Head: 5}, 1000)
	cursor := ring.Cursor(speaker(), 1000)
	ring.Append(outbox.State{Head: 6}, revisions(6, 6, 1), nil)
	ring.Reset(outbox.State{Head: 50, Compact: 40, LeaseSequence: 3})
	ring.Append(outbox.State{Head: 51, LeaseSequence: 3}, revisions(51, 51, 1), nil)
	message, _ := cursor.Next()
	require.True(t, message.GetReset_())
	require.EqualValues(t, 51, message.GetHeadRevision())
	require.Equal(t, message.GetPreviousRevision(), message.GetLastRevision())
}

// A follower of the bus that is idle hears heartbeats; a publisher that may not speak is silent, and speaks at once when it may.
func TestPublishHeartbeatsAndTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ring := outbox.NewRing(outbox.State{}, 1000)
		var speaks atomic.Bool
		turned := make(chan struct{}, 1)
		got := make(chan *feedv1.Message, 100)
		ctx, cancel := context.WithCancel(t.Context())
		go outbox.Publish(ctx, ring.Cursor(speaker(), 1000), outbox.NewInterest(), speaks.Load, turned, func(m *feedv1.Message) { got <- m })
		ring.Append(outbox.State{Head: 1}, revisions(1, 1, 1), nil)
		synctest.Wait()
		require.Empty(t, got)
		speaks.Store(true)
		turned <- struct{}{}
		synctest.Wait()
		require.Len(t, got, 1, "a heartbeat at once")
		require.EqualValues(t, 1, (<-got).GetHeadRevision())
		ring.Append(outbox.State{Head: 2}, revisions(2, 2, 1), nil)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Len(t, (<-got).GetRevisions(), 1)
		time.Sleep(10*outbox.HeartbeatInterval + 1)
		synctest.Wait()
		require.Len(t, got, 10)
		cancel()
		synctest.Wait()
	})
}

func TestStreamStartsWithItsPosition(t *testing.T) {
	ring := outbox.NewRing(outbox.State{Head: 3}, 1000)
	stop := errors.New("enough")
	var got []*feedv1.Message
	err := outbox.Stream(t.Context(), ring.Cursor(speaker(), 1000), func(m *feedv1.Message) error {
		got = append(got, m)
		if len(got) == 2 {
			return stop
		}
		ring.Append(outbox.State{Head: 4}, revisions(4, 4, 1), nil)
		return nil
	})
	require.ErrorIs(t, err, stop)
	require.EqualValues(t, 3, got[0].GetLastRevision())
	require.EqualValues(t, 4, got[1].GetLastRevision())
}

// gathering is a publisher that may speak, in a bubble.
type gathering struct {
	ring     *outbox.Ring
	interest *outbox.Interest
	got      chan *feedv1.Message
}

func gather(t *testing.T, test func(g *gathering)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &gathering{ring: outbox.NewRing(outbox.State{}, 1<<20), interest: outbox.NewInterest(), got: make(chan *feedv1.Message, 1000)}
		ctx, cancel := context.WithCancel(t.Context())
		go outbox.Publish(ctx, g.ring.Cursor(speaker(), 1000), g.interest, func() bool { return true }, nil, func(m *feedv1.Message) { g.got <- m })
		synctest.Wait()
		<-g.got // the first word
		test(g)
		cancel()
		synctest.Wait()
	})
}

// put makes one revision.
func (g *gathering) put() {
	next := g.ring.State()
	next.Head++
	g.ring.Append(next, revisions(next.Head, next.Head, 90), nil)
}

// told takes what was said by now, without heartbeats: the revisions of each message.
func (g *gathering) told() (counts []int) {
	synctest.Wait()
	for {
		select {
		case m := <-g.got:
			if n := len(m.GetRevisions()); n > 0 || len(m.GetLeaseChanges()) > 0 {
				counts = append(counts, n)
			}
		default:
			return counts
		}
	}
}

func TestChangesAreGatheredWhileNobodyWatches(t *testing.T) {
	gather(t, func(g *gathering) {
		// Who watches has the time to say it.
		g.put()
		require.Equal(t, []int{1}, g.told())
		time.Sleep(outbox.InterestFor)
		g.told()

		g.put()
		time.Sleep(outbox.GatherFor / 2)
		g.put()
		require.Empty(t, g.told())
		time.Sleep(outbox.GatherFor / 2)
		require.Equal(t, []int{2}, g.told())

		// More than one message holds goes out without another wait.
		for range 25 {
			g.put()
		}
		time.Sleep(outbox.GatherFor)
		counts := g.told()
		require.Len(t, counts, 3)
		require.Equal(t, 25, counts[0]+counts[1]+counts[2])
	})
}

func TestGatheringEndsWhenSomebodyWatches(t *testing.T) {
	gather(t, func(g *gathering) {
		time.Sleep(outbox.InterestFor)
		g.told()
		g.put()
		require.Empty(t, g.told())
		g.interest.Heard()
		require.Equal(t, []int{1}, g.told(), "what waited goes at once")
		g.put()
		require.Equal(t, []int{1}, g.told())
		time.Sleep(outbox.InterestFor - time.Nanosecond)
		g.put()
		require.Equal(t, []int{1}, g.told(), "the word counts for so long")
		time.Sleep(time.Nanosecond)
		g.put()
		require.Empty(t, g.told())
	})
}

func TestLeasesAndResetsAreNotGathered(t *testing.T) {
	gather(t, func(g *gathering) {
		time.Sleep(outbox.InterestFor)
		g.told()
		g.put()
		require.Empty(t, g.told())
		g.ring.Append(outbox.State{Head: 1, LeaseSequence: 1}, nil, []*feedv1.LeaseChange{{Sequence: 1}})
		require.Equal(t, []int{1}, g.told(), "a lease change takes along what waits")
		g.ring.Append(outbox.State{Head: 1, LeaseSequence: 2}, nil, []*feedv1.LeaseChange{{Sequence: 2}})
		require.Equal(t, []int{0}, g.told())
		g.put()
		require.Empty(t, g.told())
		g.ring.Reset(outbox.State{Head: 50})
		synctest.Wait()
		require.True(t, (<-g.got).GetReset_())
	})
}
