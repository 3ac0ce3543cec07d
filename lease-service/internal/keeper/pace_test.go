package keeper

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// storm has so many leases run out at once, each call of whose expiries takes a fixed time and so much for each lease, and each rest
// longer than it should by oversleep. It tells after how long the last is gone and the longest and the shortest time from one call to the next.
func storm(leases int, call, each, oversleep time.Duration) (last, longest, shortest time.Duration) {
	p := pace{leases: decisionLeast}
	now := time.Hour
	began := now
	shortest = time.Hour
	for leases > 0 {
		n := min(leases, p.leases)
		took := call + time.Duration(n)*each
		now += took
		leases -= n
		gap := took + p.next(now, n, took, func() int { return leases }) + oversleep
		now += gap - took
		if leases > decisionMax {
			longest, shortest = max(longest, gap), min(shortest, gap)
		}
	}
	return now - began, longest, shortest
}

// Many that run out at once are spread evenly, and are gone in time; how many there are changes how fast they go, not how long it takes.
func TestStormIsSpread(t *testing.T) {
	const call, each = 3 * time.Millisecond, 10 * time.Microsecond
	for _, oversleep := range []time.Duration{0, time.Millisecond} {
		for _, leases := range []int{20_000, 50_000, 80_000} {
			last, longest, shortest := storm(leases, call, each, oversleep)
			require.InDelta(t, expirySpread.Seconds(), last.Seconds(), expirySpread.Seconds()/20, "%d leases", leases)
			require.Less(t, longest, 2*shortest, "%d leases", leases)
		}
	}
}

// Few are not held up for as long as that.
func TestFewGoSooner(t *testing.T) {
	last, longest, _ := storm(10*decisionLeast, time.Millisecond, 0, 0)
	require.Less(t, last, expirySpread/5)
	require.LessOrEqual(t, longest, restMost+time.Millisecond)
	p := pace{leases: decisionLeast}
	require.Zero(t, p.next(time.Hour, decisionLeast-1, time.Second, func() int { t.Fatal("nothing waits"); return 0 }))
}

// A consensus tier that takes long is given more at a time and no rest, up to a bound.
func TestSlowTierGetsLargerCalls(t *testing.T) {
	p := pace{leases: decisionLeast}
	for _, want := range []int{256, 512, 512} {
		require.Zero(t, p.next(time.Hour, p.leases, 300*time.Millisecond, func() int { return 1_000_000 }))
		require.Equal(t, want, p.leases)
	}
}
