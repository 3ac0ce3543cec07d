package main

import (
	"math"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestUsageGrowsWithWork(t *testing.T) {
	before, err := usageOf(os.Getpid())
	require.NoError(t, err)
	require.Greater(t, before.peakBytes, int64(1<<20))
	sum := 0.0
	require.Eventually(t, func() bool {
		for n := range 1_000_000 {
			sum += math.Sqrt(float64(n))
		}
		after, err := usageOf(os.Getpid())
		return err == nil && after.cpuSeconds > before.cpuSeconds && sum > 0
	}, 10*time.Second, time.Millisecond)
	_, err = usageOf(-1)
	require.Error(t, err)
}
