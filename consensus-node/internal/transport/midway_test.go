package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
)

// wire is a TCP connection to a member that breaks after so many bytes, or stands still from then on.
type wire struct {
	left   atomic.Int64 // bytes that still pass towards the member
	freeze bool
	url    string
}

// newWire listens and passes on to the member at url.
func newWire(t *testing.T, url string, bytes int64, freeze bool) *wire {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{freeze: freeze, url: "http://" + lis.Addr().String()}
	w.left.Store(bytes)
	t.Cleanup(func() { _ = lis.Close() })
	go func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				_ = in.Close()
				continue
			}
			t.Cleanup(func() { _, _ = in.Close(), out.Close() })
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
			go w.pass(in, out)
		}
	}()
	return w
}

func (w *wire) pass(in, out net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		if err == nil && w.left.Add(-int64(n)) < 0 {
			if w.freeze {
				return // nobody reads on, and both ends stay open
			}
			err = io.ErrClosedPipe
		}
		if err == nil {
			_, err = out.Write(buf[:n])
		}
		if err != nil {
			_, _ = in.Close(), out.Close()
			return
		}
	}
}

// An image whose stream breaks or stalls midway leaves nothing with the receiver, and the next attempt carries it whole.
func TestImageIsSentAgainAfterABreak(t *testing.T) {
	for name, freeze := range map[string]bool{"the connection is cut": false, "the connection stands still": true} {
		t.Run(name, func(t *testing.T) {
			const stall = 300 * time.Millisecond
			dir := t.TempDir()
			n := &fakeNode{}
			url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Dir: dir, StallTimeout: stall / 2}, n, "127.0.0.1:0")
			data := noise(8 << 20)
			w := newWire(t, url, int64(len(data)/2), freeze)
			out := New(Config{ID: 1, ClusterID: cluster, StallTimeout: stall})
			defer out.Close()
			require.NoError(t, out.AddPeer(2, []string{url}))
			peer, err := out.peer(2)
			require.NoError(t, err)
			targets, err := parseTargets([]string{w.url})
			require.NoError(t, err)
			peer.move(targets)
			img := &bytesImage{data: data, size: int64(len(data))}
			require.Error(t, out.SendSnapshot(t.Context(), snapMessage(), img))
			eventually(t, "nothing is left", func() bool {
				names, err := os.ReadDir(dir)
				require.NoError(t, err)
				return len(names) == 0
			})
			require.Empty(t, n.images)

			require.NoError(t, out.UpdatePeer(2, []string{url}))
			eventually(t, "the next attempt", func() bool { return out.SendSnapshot(t.Context(), snapMessage(), img) == nil })
			require.Equal(t, data, n.images[0])
		})
	}
}

// A sender that leaves midway, and one that is told to, leave nothing behind either.
func TestSenderLeavesMidway(t *testing.T) {
	dir := t.TempDir()
	n := &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Dir: dir}, n, "127.0.0.1:0")
	out := New(Config{ID: 1, ClusterID: cluster, SnapshotBytesPerSecond: 1 << 20})
	defer out.Close()
	require.NoError(t, out.AddPeer(2, []string{url}))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	data := noise(64 << 20) // takes a minute
	go func() { ended <- out.SendSnapshot(ctx, snapMessage(), &bytesImage{data: data, size: int64(len(data))}) }()
	partial := func() int {
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(names)
	}
	eventually(t, "it has begun", func() bool { return partial() == 1 })
	// Another sender is turned away meanwhile and may come again.
	err := out.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: data[:1], size: 1})
	require.Equal(t, codes.ResourceExhausted, status.Code(errors.Unwrap(err)), "%v", err)
	cancel()
	require.Error(t, <-ended)
	eventually(t, "nothing is left", func() bool { return partial() == 0 })
	require.NoError(t, out.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: data[:1], size: 1}))
}

// The image of a leader that is cut off, and does not know that another leads, does not hold up the other's.
func TestALaterLeadersImageComesFirst(t *testing.T) {
	n := &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Dir: t.TempDir()}, n, "127.0.0.1:0")
	data := noise(8 << 20)
	w := newWire(t, url, int64(len(data)/2), true) // stands still midway: the receiver would wait for 20 s
	old := New(Config{ID: 1, ClusterID: cluster})
	defer old.Close()
	require.NoError(t, old.AddPeer(2, []string{w.url}))
	ended := make(chan error, 1)
	go func() {
		ended <- old.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: data, size: int64(len(data))})
	}()
	eventually(t, "it stands still", func() bool { return w.left.Load() < 0 })

	next := New(Config{ID: 3, ClusterID: cluster})
	defer next.Close()
	require.NoError(t, next.AddPeer(2, []string{url}))
	m := snapMessage()
	m.From = new(uint64(3))
	img := &bytesImage{data: data[:1], size: 1}
	require.ErrorContains(t, next.SendSnapshot(t.Context(), m, img), "another snapshot is being received")
	m.Term = new(m.GetTerm() + 1)
	began := time.Now()
	require.NoError(t, next.SendSnapshot(t.Context(), m, img))
	require.Less(t, time.Since(began), 5*time.Second)
	old.Close()
	require.Error(t, <-ended)
	require.Len(t, n.images, 1)
}

// What a receiver that was killed midway left behind is removed at its next start, the same as an image that it never marked.
func TestLeftoversAreRemoved(t *testing.T) {
	dir := t.TempDir()
	f, err := os.CreateTemp(dir, raftnode.PartialPattern)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	require.NoError(t, os.WriteFile(raftnode.IncomingImage(dir, 5), nil, 0o600))
	require.NoError(t, os.WriteFile(dir+"/db", nil, 0o600))
	require.NoError(t, raftnode.RemoveIncoming(dir))
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, names, 1)
}
