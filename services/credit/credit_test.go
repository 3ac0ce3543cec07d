package credit_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/credit"
)

var limits = credit.Limits{QueueItems: 8, QueueBytes: 100, BatchItems: 4, BatchBytes: 10}

func newLane() *credit.Lane[string] {
	return credit.NewLane(limits, func(s string) int { return len(s) })
}

func put(t *testing.T, l *credit.Lane[string], items ...string) {
	t.Helper()
	for _, item := range items {
		require.NoError(t, l.Put(item))
	}
}

func next(t *testing.T, l *credit.Lane[string]) credit.Batch[string] {
	t.Helper()
	batch, err := l.Next(context.Background())
	require.NoError(t, err)
	return batch
}

// An idle stream sends at once; what comes while the window is used up forms one batch when the mark arrives.
func TestLoadFillsABatchOverOneRoundTrip(t *testing.T) {
	l := newLane()
	put(t, l, "a")
	require.Equal(t, []string{"a"}, next(t, l).Items)
	put(t, l, "b")
	require.Equal(t, []string{"b"}, next(t, l).Items)
	put(t, l, "c", "d", "e")

	synctest.Test(t, func(t *testing.T) {
		l := newLane()
		put(t, l, "a")
		next(t, l)
		put(t, l, "b")
		next(t, l)
		put(t, l, "c", "d")
		got := make(chan []string, 1)
		go func() {
			batch, err := l.Next(context.Background())
			if err == nil {
				got <- batch.Items
			}
		}()
		synctest.Wait()
		require.Empty(t, got, "no credit, no batch")
		l.Taken(1)
		synctest.Wait()
		require.Equal(t, []string{"c", "d"}, <-got)
	})
}

func TestBatchBounds(t *testing.T) {
	l := newLane()
	put(t, l, "1234", "5678", "9012")
	require.Equal(t, []string{"1234", "5678"}, next(t, l).Items, "bytes bound")
	l.Taken(1)
	put(t, l, "this one is larger than a batch")
	require.Equal(t, []string{"9012"}, next(t, l).Items)
	l.Taken(2)
	require.Len(t, next(t, l).Items, 1, "a large item goes alone")
	l.Taken(3)
	put(t, l, "a", "b", "c", "d", "e")
	require.Len(t, next(t, l).Items, 4, "items bound")
}

func TestQueueIsBounded(t *testing.T) {
	l := newLane()
	put(t, l, "1", "2", "3", "4", "5", "6", "7", "8")
	require.ErrorIs(t, l.Put("9"), credit.ErrFull)
	l = newLane()
	put(t, l, string(make([]byte, 100)))
	require.ErrorIs(t, l.Put("x"), credit.ErrFull)
}

// A mark rides on a batch; it is worth a message of its own only when the other side may be out of credit.
func TestMarksRideOrGoAloneWhenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane()
		l.Received()
		put(t, l, "a")
		batch := next(t, l)
		require.Equal(t, []string{"a"}, batch.Items)
		require.EqualValues(t, 1, batch.Taken)

		l.Received()
		got := make(chan credit.Batch[string], 1)
		go func() {
			batch, err := l.Next(context.Background())
			if err == nil {
				got <- batch
			}
		}()
		synctest.Wait()
		require.Empty(t, got, "the other side has credit left")
		l.Received()
		batch = <-got
		require.Empty(t, batch.Items)
		require.EqualValues(t, 3, batch.Taken)
	})
}

func TestFalseMarksGiveNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLane()
		put(t, l, "a")
		next(t, l)
		put(t, l, "b")
		next(t, l)
		l.Taken(7)
		put(t, l, "c")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { _, err := l.Next(ctx); done <- err }()
		synctest.Wait()
		require.Empty(t, done)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
}

func TestCloseEndsNext(t *testing.T) {
	l := newLane()
	l.Close()
	require.ErrorIs(t, l.Put("a"), credit.ErrClosed)
	_, err := l.Next(context.Background())
	require.ErrorIs(t, err, credit.ErrClosed)
}
