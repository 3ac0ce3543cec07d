package expiry_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
)

// What the leases are said to take is what they take, and each takes no more than its bound, however many there are.
func TestBytes(t *testing.T) {
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, count := range []int{20_000, 30_000, 100_000, 300_000} {
		before := heap()
		c := expiry.New(0)
		for id := range int64(count) {
			c.Put(id+1, uint64(id+1), 60, 0)
			c.Start(id+1, time.Minute)
		}
		took := heap() - before
		require.InEpsilon(t, took, c.Bytes(), 0.15, "%d leases", count)
		require.LessOrEqual(t, took/count, expiry.LeaseBytes, "%d leases", count)
		runtime.KeepAlive(c)
	}
}
