package wal

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// BenchmarkRotate is what the append that meets a full segment waits for, with the next file made ahead and without.
func BenchmarkRotate(b *testing.B) {
	for _, ahead := range []bool{false, true} {
		b.Run(fmt.Sprintf("ahead=%v", ahead), func(b *testing.B) {
			log, err := Create(vfs.OS{}, b.TempDir(), Metadata{}, Options{})
			require.NoError(b, err)
			defer func() { require.NoError(b, log.Close()) }()
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				for _, name := range log.spares {
					require.NoError(b, log.fs.Remove(name))
				}
				log.spares = nil
				if ahead {
					require.NoError(b, log.Prepare())
				}
				b.StartTimer()
				start := time.Now()
				require.NoError(b, log.rotate(0))
				took = append(took, time.Since(start))
				b.StopTimer()
				require.NoError(b, log.Release(0)) // the empty segments before
				b.StartTimer()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
		})
	}
}

// A token says that a file is wanted once the segment is half full, and none is sent while one is at hand.
func TestAFileIsWantedAtHalf(t *testing.T) {
	log, err := Create(vfs.OS{}, t.TempDir(), Metadata{}, Options{SegmentBytes: 4096})
	require.NoError(t, err)
	wanted := func() bool {
		select {
		case <-log.Wanted():
			return true
		default:
			return false
		}
	}
	fill := func() {
		t.Helper()
		log.mu.Lock()
		defer log.mu.Unlock()
		log.group.reset()
		require.NoError(t, log.group.addBase(0))
		require.NoError(t, log.put(kindData))
	}
	for log.end < 2048-100 {
		fill()
		require.False(t, wanted())
	}
	for log.end < 2048 {
		fill()
	}
	require.True(t, wanted())
	require.NoError(t, log.Prepare())
	fill()
	require.False(t, wanted())
	require.NoError(t, log.rotate(0))
	require.False(t, wanted(), "the new segment is empty")
	require.Empty(t, log.spares, "the rotation took the file")
	require.NoError(t, log.Close())
}
