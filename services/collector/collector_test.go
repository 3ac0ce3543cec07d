package collector

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const mib = 1 << 20

func TestPercent(t *testing.T) {
	require.Equal(t, 400, percent(16*mib, 0), "to 16 MiB, of 4 for each hundred")
	require.Equal(t, 450, percent(16*mib, 2*mib))
	require.Equal(t, 160, percent(16*mib, 10*mib))
	require.Equal(t, 1000, percent(128*mib, 128*mib/10))
	require.Equal(t, 50, percent(128*mib, 256*mib))
}

// While collections cost much the room grows to its bound, and while they cost little it shrinks to the least.
func TestRoomFollowsWhatCollectionsCost(t *testing.T) {
	b := budget{room: roomMin, roomMax: 100 * mib}
	live := uint64(10 * mib)
	after := func(passed time.Duration, gcS, otherS float64) int {
		require.True(t, b.after(passed, live, gcS, otherS))
		return int(b.room)
	}
	dear := func() int { return after(time.Second, 0.020, 0.180) }
	cheap := func() int { return after(time.Second, 0.002, 0.198) }
	require.Equal(t, 10*mib, dear())
	require.Equal(t, 12*mib+mib/2, dear())
	for range 10 {
		dear()
	}
	require.Equal(t, 100*mib, dear())
	require.Equal(t, 80*mib, cheap())
	require.Equal(t, 80*mib, after(time.Second, 0.008, 0.192), "in between it stays")
	require.False(t, b.after(time.Second, live, 0.010, 0.040), "too little to judge by")
	require.Equal(t, 64*mib, after(long, 0.010, 0.010), "a few collections in a long time may cost what they like")
	require.Equal(t, 80*mib, after(long, 1, 4), "if it is not much")
	for range 12 {
		cheap()
	}
	require.Equal(t, roomMin, cheap())
	require.Equal(t, roomMin, after(long, 0, 0))
	live = 400 * mib
	require.Equal(t, 200*mib, cheap(), "half of what is in use")
	for range 4 {
		dear()
	}
	require.Equal(t, 400*mib, dear(), "as much as is in use")
}

// Each collection sets the percentage by what is in use then, up and down.
func TestPaceFollowsWhatIsInUse(t *testing.T) {
	t.Setenv("GOGC", "") // as if it were not set
	t.Cleanup(func() { debug.SetGCPercent(percentDefault) })
	Pace(roomMin)
	percentNow := func() uint64 {
		runtime.GC()
		now := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(now)
		return now[0].Value.Uint64()
	}
	require.Eventually(t, func() bool { return percentNow() > 130 }, 10*time.Second, time.Millisecond)
	held := make([]byte, 64*mib)
	require.Eventually(t, func() bool { return percentNow() <= 60 }, 10*time.Second, time.Millisecond)
	runtime.KeepAlive(held)
}

// Memory goes back once after each time of work, when it is over.
func TestRestComesAfterWork(t *testing.T) {
	r := &rest{}
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
