package edge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// However many ask, and give up and ask again, no more than one run is under way and one waits.
func TestSharedWorkMakesNoQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var shared sharedWork
		begun, goOn, atOnce := 0, make(chan error), 0
		work := func() error {
			begun++
			atOnce++
			defer func() { atOnce-- }()
			if atOnce != 1 {
				t.Errorf("%d runs at once", atOnce)
			}
			return <-goOn
		}
		results := make(chan error, 100)
		ask := func(ctx context.Context) { go func() { results <- shared.do(ctx, work) }() }
		ask(t.Context())
		synctest.Wait()
		require.Equal(t, 1, begun)
		impatient, giveUp := context.WithCancel(t.Context())
		for range 20 {
			ask(impatient)
		}
		synctest.Wait()
		giveUp()
		for range 20 {
			require.ErrorIs(t, <-results, context.Canceled)
		}
		for range 20 {
			ask(t.Context())
		}
		synctest.Wait()
		require.Equal(t, 1, begun)
		goOn <- nil
		require.NoError(t, <-results)
		synctest.Wait()
		require.Equal(t, 2, begun, "one for all who came while the first was under way")
		full := errors.New("the disk is full")
		goOn <- full
		for range 20 {
			require.Equal(t, full, <-results)
		}
		synctest.Wait()
		require.Equal(t, 2, begun)
		ask(t.Context())
		goOn <- nil
		require.NoError(t, <-results)
		require.Equal(t, 3, begun)
	})
}
