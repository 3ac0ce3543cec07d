package transport

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A receiver that takes everything never leaves a sender without room, and marks a small part of what it takes.
func TestMarksComeInTimeAndSeldom(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "half a mark": markBytesMax / 2, "full": batchBytesMax, "larger than the window": 2 * windowBytesMax} {
		t.Run(name, func(t *testing.T) {
			var w, taken window
			marks := 0
			const batches = 1000
			for i := range uint64(batches) {
				require.True(t, w.room(), "after %d batches", i)
				w.sent(size)
				taken.sent(size)
				if taken.due() {
					taken.mark(i + 1)
					w.mark(i + 1)
					marks++
				}
			}
			require.LessOrEqual(t, marks, batches/min(markBatches, max(1, markBytesMax/size)))
		})
	}
}

func TestWindowIsBounded(t *testing.T) {
	var w window
	sent := 0
	for w.room() {
		w.sent(1)
		sent++
	}
	require.Equal(t, windowBatches, sent)
	w.mark(1)
	require.True(t, w.room())
	w.sent(windowBytesMax)
	w.mark(10)
	require.False(t, w.room(), "bytes count too")
	for _, wrong := range []uint64{0, 10, 9, 1 << 40} {
		before := w.bytes
		w.mark(wrong)
		require.Equal(t, before, w.bytes, "the mark %d says nothing", wrong)
	}
	w.mark(uint64(windowBatches) + 1)
	require.True(t, w.room())
	require.Zero(t, w.bytes)
}
