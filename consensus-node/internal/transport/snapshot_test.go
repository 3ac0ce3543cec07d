package transport

import (
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

type bytesImage struct {
	data []byte
	size int64
	fail error
}

func (i *bytesImage) Metadata() *raftpb.SnapshotMetadata {
	return snapMessage().GetSnapshot().GetMetadata()
}
func (i *bytesImage) Size() int64  { return i.size }
func (i *bytesImage) Close() error { return nil }
func (i *bytesImage) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i.data)
	if err == nil {
		err = i.fail
	}
	return int64(n), err
}

func snapMessage() *raftpb.Message {
	m := message(raftpb.MsgSnap, 0, 0)
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(17)), Term: new(uint64(1)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}},
	}}
	return m
}

func noise(n int) []byte {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func TestImageArrivesWhole(t *testing.T) {
	for _, size := range []int{0, 1, chunkBytes, 2*chunkBytes + 5} {
		p := newPair(t, Config{}, &fakeNode{})
		data := noise(size)
		require.NoError(t, p.out.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: data, size: int64(size)}))
		require.Len(t, p.to.images, 1)
		require.Equal(t, sha256.Sum256(data), sha256.Sum256(p.to.images[0]))
		require.Contains(t, p.to.paths[0], "incoming-0000000000000011.db")
	}
}

func TestRefusedImageIsRemovedAndAnyOtherIsKept(t *testing.T) {
	for _, tc := range []struct {
		err  error
		kept bool
	}{{raftnode.ErrSnapshotIgnored, false}, {raftnode.ErrStopped, true}} {
		p := newPair(t, Config{}, &fakeNode{refuse: tc.err})
		err := p.out.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: noise(10), size: 10})
		require.ErrorContains(t, err, tc.err.Error())
		_, err = os.Stat(p.to.paths[0])
		require.Equal(t, !tc.kept, errors.Is(err, os.ErrNotExist))
	}
}

func TestImageThatDoesNotArriveWholeLeavesNothing(t *testing.T) {
	for name, tc := range map[string]struct {
		img  *bytesImage
		says string
	}{
		"too long":     {&bytesImage{data: noise(2 * chunkBytes), size: 100}, "longer than the 100 bytes announced"},
		"too short":    {&bytesImage{data: noise(50), size: 100}, "ends after 50 of 100 bytes"},
		"sender fails": {&bytesImage{data: noise(2 * chunkBytes), size: 3 * chunkBytes, fail: errors.New("bad page")}, "bad page"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := &fakeNode{}
			url, stop := serve(t, Config{ID: 2, ClusterID: cluster, Dir: dir}, n, "127.0.0.1:0")
			out := New(Config{ID: 1, ClusterID: cluster})
			defer out.Close()
			require.NoError(t, out.AddPeer(2, []string{url}))
			require.ErrorContains(t, out.SendSnapshot(t.Context(), snapMessage(), tc.img), tc.says)
			stop() // waits for the handler
			names, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, names)
			require.Empty(t, n.images)
		})
	}
}

func TestDamagedChunksAreRefused(t *testing.T) {
	dir := t.TempDir()
	n := &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Dir: dir, StallTimeout: 50 * time.Millisecond}, n, "127.0.0.1:0")
	c := client(t, url)
	raw, err := proto.Marshal(snapMessage())
	require.NoError(t, err)
	data := noise(100)
	sum := sha256.Sum256(data)
	good := func() *peerv1.SnapshotChunk {
		return &peerv1.SnapshotChunk{
			Hello:   &peerv1.Hello{Version: 1, ClusterId: cluster, From: 1, To: 2},
			Message: raw, Size: 100, Data: data, Crc: crc32.Checksum(data, castagnoli), Sha256: sum[:],
		}
	}
	for _, tc := range []struct {
		change func(c *peerv1.SnapshotChunk)
		code   codes.Code
	}{
		{func(c *peerv1.SnapshotChunk) { c.Crc++ }, codes.DataLoss},
		{func(c *peerv1.SnapshotChunk) { c.Sha256 = make([]byte, 32) }, codes.DataLoss},
		{func(c *peerv1.SnapshotChunk) { c.Message = []byte{0xff} }, codes.InvalidArgument},
		{func(c *peerv1.SnapshotChunk) { c.Message = nil }, codes.InvalidArgument},
		{func(c *peerv1.SnapshotChunk) { c.Sha256 = nil }, codes.DeadlineExceeded}, // not the last, and no other comes
	} {
		chunk := good()
		tc.change(chunk)
		stream, err := c.Snapshot(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(chunk))
		err = stream.RecvMsg(&peerv1.SnapshotReply{})
		require.Equal(t, tc.code, status.Code(err), "%v", err)
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, names)
	}
	stream, err := c.Snapshot(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(good()))
	reply, err := stream.CloseAndRecv()
	require.NoError(t, err)
	require.True(t, reply.GetInstalled(), reply.GetReason())
}

// All images together keep to the rate: two at once take twice as long.
func TestRateBoundsTheImages(t *testing.T) {
	const rate, size = 8 << 20, 3 << 20
	p := newPair(t, Config{SnapshotBytesPerSecond: rate}, &fakeNode{})
	third, _ := serve(t, Config{ID: 3, ClusterID: cluster, Dir: t.TempDir()}, &fakeNode{}, "127.0.0.1:0")
	require.NoError(t, p.out.AddPeer(3, []string{third}))
	start := time.Now()
	data := noise(size)
	var sending sync.WaitGroup
	for id := uint64(2); id <= 3; id++ {
		sending.Go(func() {
			m := snapMessage()
			m.To = &id
			assert.NoError(t, p.out.SendSnapshot(t.Context(), m, &bytesImage{data: data, size: size}))
		})
	}
	sending.Wait()
	paced := float64(2*size - burstBytes)
	require.Greater(t, time.Since(start).Seconds(), 0.9*paced/rate)
}

func TestBucket(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newBucket(1 << 20)
	require.Zero(t, b.take(burstBytes, now), "the burst")
	require.Equal(t, 500*time.Millisecond, b.take(512<<10, now))
	require.Equal(t, time.Second, b.take(512<<10, now), "what waits already comes first")
	now = now.Add(time.Hour)
	require.Zero(t, b.take(burstBytes, now), "a pause makes up for no more than the burst")
	require.Equal(t, 500*time.Millisecond, b.take(512<<10, now))
	require.Zero(t, newBucket(0).take(1<<40, now), "no bound")
}
