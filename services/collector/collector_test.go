package collector

import (
	"runtime"
	"runtime/debug"
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

// Each collection sets the percentage by what is in use then, up and down.
func TestPaceFollowsWhatIsInUse(t *testing.T) {
	t.Setenv("GOGC", "") // as if it were not set
	t.Cleanup(func() { debug.SetGCPercent(percentMin) })
	Pace(64 << 20)
	collected := func() bool { runtime.GC(); return read("/gc/gogc:percent") > 400 }
	require.Eventually(t, collected, 10*time.Second, time.Millisecond)
	held := make([]byte, 64<<20)
	collected = func() bool { runtime.GC(); return read("/gc/gogc:percent") <= 110 }
	require.Eventually(t, collected, 10*time.Second, time.Millisecond)
	runtime.KeepAlive(held)
}

// Memory goes back once after each time of work, when it is over.
func TestRestComesAfterWork(t *testing.T) {
	const mib = 1 << 20
	r := &rest{worth: 16 * mib}
	allocated := uint64(0)
	look := func(more uint64) bool {
		allocated += more
		return r.come(allocated)
	}
	require.False(t, look(10*mib))
	require.False(t, look(0))
	require.False(t, look(0), "too little to be worth it")
	for range 5 {
		require.False(t, look(50*mib), "busy")
	}
	require.False(t, look(mib))
	require.True(t, look(mib))
	for range 15 {
		require.False(t, look(mib))
	}
	require.True(t, look(mib), "little by little it is worth it again")
	require.False(t, look(100*mib))
}
