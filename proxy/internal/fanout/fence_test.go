package fanout

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/proxy/internal/watch"
)

// Who asks while a fence is under way waits for the next one, which all of them share.
func TestFencesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int64
		release := make(chan error)
		f := NewFencer(func(context.Context) (watch.Fence, error) {
			n := rounds.Add(1)
			return watch.Fence{CompactRevision: n}, <-release
		})
		got := make(chan watch.Fence, 8)
		ask := func() {
			fence, err := f.Fence(t.Context())
			if err == nil {
				got <- fence
			}
		}
		go ask()
		synctest.Wait()
		for range 3 {
			go ask()
		}
		synctest.Wait()
		require.EqualValues(t, 1, rounds.Load())
		release <- nil
		require.EqualValues(t, 1, (<-got).CompactRevision)
		synctest.Wait()
		release <- nil
		for range 3 {
			require.EqualValues(t, 2, (<-got).CompactRevision, "taken after they asked")
		}
		// A failed one tells those who waited, and the next begins anew.
		failed := make(chan error, 1)
		go func() { _, err := f.Fence(t.Context()); failed <- err }()
		release <- errors.New("no leader")
		require.ErrorContains(t, <-failed, "no leader")
		// One who goes away does not take the fence along.
		gone, cancel := context.WithCancel(t.Context())
		go func() { _, err := f.Fence(gone); failed <- err }()
		synctest.Wait()
		go ask()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-failed, context.Canceled)
		release <- nil
		release <- nil
		require.EqualValues(t, 5, (<-got).CompactRevision)
	})
}
