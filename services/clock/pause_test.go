package clock_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/clock"
)

func TestPauseEndsWithItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		require.NoError(t, clock.Pause(ctx, time.Second))
		require.NoError(t, clock.Pause(ctx, 0))
		require.Equal(t, time.Second, time.Since(began))
		time.AfterFunc(time.Minute, cancel)
		require.ErrorIs(t, clock.Pause(ctx, time.Hour), context.Canceled)
		require.Equal(t, time.Second+time.Minute, time.Since(began))
		require.ErrorIs(t, clock.Pause(ctx, -1), context.Canceled)
	})
}
