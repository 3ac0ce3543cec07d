package batch_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
)

func TestHolderOpensAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		var fail error
		h := batch.NewHolder(func() (*batch.Stream[*consensusv1.Call, *consensusv1.Answer], error) {
			opened++
			if fail != nil {
				return nil, fail
			}
			return open(t, batch.DefaultLimits()).Stream, nil
		})
		_, live := h.Live()
		require.False(t, live)
		first, err := h.Stream()
		require.NoError(t, err)
		again, err := h.Stream()
		require.NoError(t, err)
		require.Same(t, first, again)

		// After a break it waits a moment, and does not try for every caller.
		fail = errors.New("refused")
		first.Close()
		_, err = h.Stream()
		require.Error(t, err)
		require.Equal(t, 1, opened, "it broke only just")
		time.Sleep(time.Second) // in the bubble's time
		_, err = h.Stream()
		require.ErrorIs(t, err, fail)
		_, err = h.Stream()
		require.ErrorIs(t, err, fail)
		require.Equal(t, 2, opened)
		fail = nil
		time.Sleep(time.Second)
		_, err = h.Stream()
		require.NoError(t, err)
		h.Close()
		_, err = h.Stream()
		require.Error(t, err)
	})
}
