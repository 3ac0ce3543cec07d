package edge

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// The sender of a snapshot rests after each so many bytes where entries came meanwhile, and only there.
func TestSnapshotMakesWay(t *testing.T) {
	const image = 5*restEveryBytes + 1000
	send := func(comes bool) (rests, bytes int) {
		index := uint64(7)
		w := &snapshotWriter{
			hash: sha256.New(), left: image, index: index, since: time.Now(),
			send: func(message proto.Message, _ int64) error { bytes += proto.Size(message); return nil },
			applied: func() uint64 {
				if comes {
					index++
				}
				return index
			},
			pause: func(d time.Duration) error {
				require.LessOrEqual(t, d, restMax)
				rests++
				return nil
			},
		}
		_, err := w.Write(make([]byte, image))
		require.NoError(t, err)
		require.NoError(t, w.finish())
		return rests, bytes
	}
	busy, busyBytes := send(true)
	quiet, quietBytes := send(false)
	require.Equal(t, 5, busy)
	require.Zero(t, quiet)
	require.Greater(t, busyBytes, image)
	require.Equal(t, busyBytes, quietBytes)
}
