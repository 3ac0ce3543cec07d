package lease

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A renewal that waits for its next attempt goes to the new owner as soon as there is one, and not a second time when its wait is over.
func TestAViewEndsTheWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := NewInstances(nil, topology.New(topology.Config{Log: slog.New(slog.DiscardHandler)}), batch.Limits{})
		began := time.Now()
		attempts := make(chan time.Duration, 3)
		wait := func(d time.Duration) {
			i.after(d, &renewal{instances: i, live: func() bool {
				attempts <- time.Since(began)
				return false
			}})
		}
		wait(100 * time.Millisecond)
		wait(300 * time.Millisecond)
		time.Sleep(200 * time.Millisecond)
		i.mu.Lock()
		i.adopt(&feedv1.View{Epoch: 2})
		i.mu.Unlock()
		time.Sleep(time.Second)
		require.Len(t, attempts, 2)
		require.Equal(t, 100*time.Millisecond, <-attempts)
		require.Equal(t, 200*time.Millisecond, <-attempts)
	})
}
