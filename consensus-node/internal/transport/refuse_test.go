package transport

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

// stranger is a peer that behaves as its fields say.
type stranger struct {
	peerv1.UnimplementedPeerServer
	version  uint32
	messages func(grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error
	snapshot func(snapshotStream) error
}

func (s *stranger) Identify(context.Context, *peerv1.IdentifyRequest) (*peerv1.IdentifyResponse, error) {
	return &peerv1.IdentifyResponse{Version: s.version, ClusterId: cluster, MemberId: 2}, nil
}

func (s *stranger) Messages(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
	return s.messages(stream)
}

func (s *stranger) Snapshot(stream snapshotStream) error { return s.snapshot(stream) }

func serveStranger(t *testing.T, s *stranger) string {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(ServerMessageBytes(2<<20)))
	peerv1.RegisterPeerServer(server, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(lis) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return "http://" + lis.Addr().String()
}

// accept takes the hello as a member does.
func accept(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return stream.SendHeader(metadata.Pairs(acceptedKey, "1"))
}

// sending is member 1 with a log, whose only peer is at url.
func sending(t *testing.T, url string) (*Transport, *fakeNode, *lines) {
	t.Helper()
	log := &lines{}
	out := New(Config{ID: 1, ClusterID: cluster, Logger: slog.New(slog.NewTextHandler(log, nil))})
	t.Cleanup(out.Close)
	from := &fakeNode{}
	out.Start(from)
	require.NoError(t, out.AddPeer(2, []string{url}))
	return out, from, log
}

// attempts waits for several attempts to connect.
func attempts(t *testing.T) {
	t.Helper()
	time.Sleep(6 * backoffLeast)
}

func TestWrongVersionIsNotTalkedTo(t *testing.T) {
	asked := make(chan struct{}, 64)
	url := serveStranger(t, &stranger{version: Version + 1, messages: func(grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
		asked <- struct{}{}
		return nil
	}})
	out, from, log := sending(t, url)
	const says = "speaks peer protocol version 2, not 1"
	eventually(t, says, func() bool { return strings.Contains(log.String(), says) })
	attempts(t)
	require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
	out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
	require.Equal(t, 1, from.unreachable(2))
	require.Empty(t, asked)
}

// An image goes to nobody else than the member that it is for.
func TestImageIsNotSentToAStranger(t *testing.T) {
	for says, cfg := range map[string]Config{
		"is member 3, not 2":                   {ID: 3, ClusterID: cluster},
		"answers for cluster 00000000000000c2": {ID: 2, ClusterID: 0xc2},
	} {
		cfg.Dir = t.TempDir()
		n := &fakeNode{}
		url, _ := serve(t, cfg, n, "127.0.0.1:0")
		out, _, _ := sending(t, url)
		require.ErrorContains(t, out.SendSnapshot(t.Context(), snapMessage(), &bytesImage{data: noise(10), size: 10}), says)
		require.Empty(t, n.images)
	}
}

// Who is refused tries again and again; the member that refuses says it once.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	log := &lines{}
	url, _ := serve(t, Config{
		ID: 2, ClusterID: cluster, Dir: t.TempDir(), Removed: func(id uint64) bool { return id == 9 },
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}, &fakeNode{}, "127.0.0.1:0")
	c := client(t, url)
	for _, hello := range []*peerv1.Hello{
		{Version: 2, ClusterId: cluster, From: 1, To: 2},
		{Version: 1, ClusterId: 7, From: 1, To: 2},
		{Version: 1, ClusterId: cluster, From: 1, To: 3},
		{Version: 1, ClusterId: cluster, From: 9, To: 2},
	} {
		before := strings.Count(log.String(), "\n")
		for range 5 {
			stream, err := c.Messages(t.Context())
			require.NoError(t, err)
			require.NoError(t, stream.Send(&peerv1.MessageBatch{Hello: hello}))
			_, err = stream.Recv()
			require.Error(t, err)
		}
		require.Equal(t, before+1, strings.Count(log.String(), "\n"), log.String())
	}
	require.Contains(t, log.String(), "member 9 was removed")
}

func TestWhatIsSaidIsBounded(t *testing.T) {
	q := &quiet{}
	now := time.Unix(1000, 0)
	for i := range 10 * quietKeysMax {
		q.may(fmt.Sprint(i), now)
	}
	require.Len(t, q.said, quietKeysMax)
	require.False(t, q.may("0", now))
	require.True(t, q.may("0", now.Add(quietFor)))
	require.True(t, q.may("new", now.Add(quietFor)), "what is old makes room")
}

// A member that accepts and leaves at once, over and over, costs a line or two and no flood.
func TestFlappingIsNoFlood(t *testing.T) {
	begun := make(chan struct{}, 1024)
	url := serveStranger(t, &stranger{version: Version, messages: func(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
		if err := accept(stream); err != nil {
			return err
		}
		begun <- struct{}{}
		return status.Error(codes.Unavailable, "not now")
	}})
	_, _, log := sending(t, url)
	eventually(t, "it comes again and again", func() bool { return len(begun) >= 8 })
	require.LessOrEqual(t, strings.Count(log.String(), "\n"), 3, log.String())
}

// A member that accepts the streams and then reads nothing holds no more than its lanes and its window.
func TestMemberThatNeverReadsCostsBoundedMemory(t *testing.T) {
	url := serveStranger(t, &stranger{version: Version, messages: func(stream grpc.BidiStreamingServer[peerv1.MessageBatch, peerv1.MessageAck]) error {
		if err := accept(stream); err != nil {
			return err
		}
		<-stream.Context().Done()
		return nil
	}})
	out, from, _ := sending(t, url)
	eventually(t, "connected", func() bool {
		before := from.unreachable(2)
		out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
		return from.unreachable(2) == before
	})
	for _, typ := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat} {
		const size, count = 512 << 10, 600
		before := from.unreachable(2)
		big := message(typ, 1, size)
		for range count {
			out.Send([]*raftpb.Message{big})
		}
		taken := (count - (from.unreachable(2) - before)) * size
		most := appendBytesMax
		if typ != raftpb.MsgApp {
			most = urgentBytesMax
		}
		require.LessOrEqual(t, taken, most+windowBytesMax+batchBytesMax, "%v", typ)
	}
}

// A listener that accepts connections and never says anything holds nothing at all.
func TestSilentListenerHoldsNothing(t *testing.T) {
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = lis.Close() }()
	out, from, _ := sending(t, "http://"+lis.Addr().String())
	for range 100 {
		out.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 512<<10)})
	}
	require.Equal(t, 100, from.unreachable(2))
}
