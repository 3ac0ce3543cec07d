package collector

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPercent(t *testing.T) {
	const mib = 1 << 20
	require.Equal(t, 1000, percent(128*mib, 0))
	require.Equal(t, 1000, percent(128*mib, 4*mib))
	require.Equal(t, 400, percent(128*mib, 32*mib))
	require.Equal(t, 100, percent(128*mib, 128*mib))
	require.Equal(t, 100, percent(128*mib, 900*mib))
}

func setting() uint64 {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// Each collection sets the percentage by what is in use then, up and down.
func TestPaceFollowsWhatIsInUse(t *testing.T) {
	t.Setenv("GOGC", "") // as if it were not set
	t.Cleanup(func() { debug.SetGCPercent(percentMin) })
	Pace(64 << 20)
	collected := func() bool { runtime.GC(); return setting() > 400 }
	require.Eventually(t, collected, 10*time.Second, time.Millisecond)
	held := make([]byte, 64<<20)
	collected = func() bool { runtime.GC(); return setting() <= 110 }
	require.Eventually(t, collected, 10*time.Second, time.Millisecond)
	runtime.KeepAlive(held)
}
