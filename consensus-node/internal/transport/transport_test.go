package transport

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = 0xc1

// fakeNode keeps what it is given.
type fakeNode struct {
	gate   chan struct{} // if set, Step waits for it to close
	refuse error         // of ReceiveSnapshot
	mu     sync.Mutex
	got    []*raftpb.Message
	lost   map[uint64]int
	gone   map[uint64]int // reports
	images [][]byte
	paths  []string
	silent time.Duration // in term 7
}

func (n *fakeNode) Silence(_ context.Context, term uint64) (time.Duration, error) {
	if term != 7 {
		return 0, raftnode.ErrOtherTerm
	}
	return n.silent, nil
}

func (n *fakeNode) Step(ctx context.Context, m *raftpb.Message) error {
	if n.gate != nil && m.GetType() == raftpb.MsgApp {
		select {
		case <-n.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.got = append(n.got, m)
	return nil
}

func (n *fakeNode) ReportUnreachable(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lost == nil {
		n.lost = map[uint64]int{}
	}
	n.lost[id]++
}

func (n *fakeNode) ReportGone(id uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone == nil {
		n.gone = map[uint64]int{}
	}
	n.gone[id]++
}

func (n *fakeNode) said(id uint64) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gone[id]
}

func (n *fakeNode) ReceiveSnapshot(_ context.Context, _ *raftpb.Message, path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n.images, n.paths = append(n.images, b), append(n.paths, path)
	if n.refuse != nil {
		return n.refuse
	}
	return os.Remove(path)
}

func (n *fakeNode) messages() []*raftpb.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*raftpb.Message(nil), n.got...)
}

func (n *fakeNode) unreachable(id uint64) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost[id]
}

// serve runs the receiving side of a member at addr (port 0 for any) and returns its URL and how to stop it.
func serve(t *testing.T, cfg Config, n Node, addr string) (string, func()) {
	t.Helper()
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
	require.NoError(t, err)
	s := grpc.NewServer(grpc.WaitForHandlers(true), grpc.MaxRecvMsgSize(ServerMessageBytes(2<<20)))
	peerv1.RegisterPeerServer(s, NewServer(cfg, n))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(lis) }()
	var once sync.Once
	stop := func() { once.Do(func() { s.Stop(); <-done }) }
	t.Cleanup(stop)
	return "http://" + lis.Addr().String(), stop
}

// pair is member 1, which sends, and member 2, which receives.
type pair struct {
	out  *Transport
	from *fakeNode
	to   *fakeNode
	url  string
	stop func()
}

func newPair(t *testing.T, cfg Config, to *fakeNode) *pair {
	t.Helper()
	p := &pair{from: &fakeNode{}, to: to}
	p.url, p.stop = serve(t, Config{ID: 2, ClusterID: cluster, Dir: t.TempDir()}, to, "127.0.0.1:0")
	cfg.ID, cfg.ClusterID = 1, cluster
	p.out = New(cfg)
	p.out.Start(p.from)
	t.Cleanup(p.out.Close)
	require.NoError(t, p.out.AddPeer(2, []string{p.url}))
	return p
}

func message(typ raftpb.MessageType, index uint64, size int) *raftpb.Message {
	m := &raftpb.Message{Type: typ.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(1)), Index: &index}
	if size > 0 {
		m.Entries = []*raftpb.Entry{{Index: &index, Term: new(uint64(1)), Data: make([]byte, size)}}
	}
	return m
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 5*time.Second, 2*time.Millisecond, what)
}

// connect sends heartbeats until one arrives.
func (p *pair) connect(t *testing.T) {
	t.Helper()
	eventually(t, "connected", func() bool {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
		return len(p.to.messages()) > 0
	})
}

func TestAppendsArriveInOrder(t *testing.T) {
	p := newPair(t, Config{}, &fakeNode{})
	p.connect(t)
	for i := range uint64(500) {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgApp, i, int(i)), message(raftpb.MsgHeartbeat, i, 0)})
	}
	var appends []uint64
	eventually(t, "all appends arrive", func() bool {
		appends = appends[:0]
		for _, m := range p.to.messages() {
			if m.GetType() == raftpb.MsgApp {
				appends = append(appends, m.GetIndex())
			}
		}
		return len(appends) == 500
	})
	require.IsIncreasing(t, appends)
}

func TestHeartbeatPassesAppendsThatAreStuck(t *testing.T) {
	gate := make(chan struct{})
	p := newPair(t, Config{}, &fakeNode{gate: gate})
	p.connect(t)
	for i := range uint64(100) {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgApp, i, 512<<10)})
	}
	p.out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 7, 0)})
	eventually(t, "the heartbeat arrives", func() bool {
		for _, m := range p.to.messages() {
			if m.GetIndex() == 7 {
				return true
			}
		}
		return false
	})
	close(gate)
}

func TestSlowMemberCostsBoundedMemory(t *testing.T) {
	gate := make(chan struct{})
	p := newPair(t, Config{}, &fakeNode{gate: gate})
	p.connect(t)
	before := p.from.unreachable(2)
	big := message(raftpb.MsgApp, 1, 512<<10)
	for range 1000 { // counts as 500 MiB
		p.out.Send([]*raftpb.Message{big})
	}
	peer, err := p.out.peer(2)
	require.NoError(t, err)
	peer.appends.mu.Lock()
	held := peer.appends.bytes
	peer.appends.mu.Unlock()
	require.LessOrEqual(t, held, appendBytesMax)
	require.Greater(t, p.from.unreachable(2), before+500)
	close(gate)
}

func TestStuckStreamIsGivenUp(t *testing.T) {
	gate := make(chan struct{})
	p := newPair(t, Config{StallTimeout: 50 * time.Millisecond}, &fakeNode{gate: gate})
	p.connect(t)
	before := p.from.unreachable(2) // connect met a closed lane
	for i := range uint64(20) {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgApp, i, 1<<20)})
	}
	require.Equal(t, before, p.from.unreachable(2))
	eventually(t, "the stream is given up", func() bool {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
		return p.from.unreachable(2) > before
	})
	close(gate)
	n := len(p.to.messages())
	eventually(t, "it comes back", func() bool {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
		return len(p.to.messages()) > n+1
	})
}

func TestDeadMemberHoldsNothingAndIsReported(t *testing.T) {
	p := newPair(t, Config{}, &fakeNode{})
	p.connect(t)
	p.stop()
	before := p.from.unreachable(2) // connect met a closed lane
	eventually(t, "reported", func() bool {
		p.out.Send([]*raftpb.Message{message(raftpb.MsgApp, 1, 1<<10)})
		return p.from.unreachable(2) > before
	})
	big := message(raftpb.MsgApp, 1, 1<<20)
	for range 1000 {
		p.out.Send([]*raftpb.Message{big})
	}
	peer, err := p.out.peer(2)
	require.NoError(t, err)
	peer.appends.mu.Lock()
	defer peer.appends.mu.Unlock()
	require.Zero(t, peer.appends.bytes)
}

func TestReconnectsWithinABackoffOf1s(t *testing.T) {
	p := newPair(t, Config{}, &fakeNode{})
	p.connect(t)
	p.stop()
	time.Sleep(300 * time.Millisecond) // some attempts fail
	n := &fakeNode{}
	_, _ = serve(t, Config{ID: 2, ClusterID: cluster}, n, strings.TrimPrefix(p.url, "http://"))
	start := time.Now()
	p.to = n
	p.connect(t)
	require.Less(t, time.Since(start), 1500*time.Millisecond)
}

func TestUpdatedPeerIsReachedAtItsNewURL(t *testing.T) {
	p := newPair(t, Config{}, &fakeNode{})
	p.connect(t)
	n := &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster}, n, "127.0.0.1:0")
	require.NoError(t, p.out.UpdatePeer(2, []string{url}))
	p.to = n
	p.connect(t)
	p.out.RemovePeer(2)
	before := p.from.unreachable(2)
	p.out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
	require.Equal(t, before+1, p.from.unreachable(2))
}

// lines collects a log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWrongMemberOrClusterIsNotTalkedTo(t *testing.T) {
	for says, cfg := range map[string]Config{
		"answers for cluster 00000000000000c2, not for 00000000000000c1": {ID: 2, ClusterID: 0xc2},
		"is member 3, not 2": {ID: 3, ClusterID: cluster},
	} {
		n := &fakeNode{}
		url, _ := serve(t, cfg, n, "127.0.0.1:0")
		log := &lines{}
		out := New(Config{ID: 1, ClusterID: cluster, Logger: slog.New(slog.NewTextHandler(log, nil))})
		from := &fakeNode{}
		out.Start(from)
		require.NoError(t, out.AddPeer(2, []string{url}))
		eventually(t, says, func() bool { return strings.Contains(log.String(), says) })
		time.Sleep(200 * time.Millisecond) // several attempts, one line
		require.Equal(t, 1, strings.Count(log.String(), "\n"), log.String())
		out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 0, 0)})
		require.Equal(t, 1, from.unreachable(2))
		require.Empty(t, n.messages())
		out.Close()
	}
}

func client(t *testing.T, url string) peerv1.PeerClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(url, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return peerv1.NewPeerClient(conn)
}

func TestHelloIsChecked(t *testing.T) {
	n := &fakeNode{}
	url, _ := serve(t, Config{
		ID: 2, ClusterID: cluster, Name: "n2", Dir: t.TempDir(), Removed: func(id uint64) bool { return id == 9 },
	}, n, "127.0.0.1:0")
	c := client(t, url)
	good := func() *peerv1.Hello { return &peerv1.Hello{Version: 1, ClusterId: cluster, From: 1, To: 2} }
	for _, tc := range []struct {
		change func(h *peerv1.Hello) *peerv1.Hello
		code   codes.Code
		says   string
	}{
		{func(*peerv1.Hello) *peerv1.Hello { return nil }, codes.FailedPrecondition, "does not begin with a hello"},
		{func(h *peerv1.Hello) *peerv1.Hello { h.Version = 2; return h }, codes.FailedPrecondition, "version 2 is not spoken here"},
		{
			func(h *peerv1.Hello) *peerv1.Hello { h.ClusterId = 7; return h }, codes.FailedPrecondition,
			"this member belongs to cluster 00000000000000c1, not to 0000000000000007",
		},
		{func(h *peerv1.Hello) *peerv1.Hello { h.To = 3; return h }, codes.FailedPrecondition, "this is member 2, not 3"},
		{func(h *peerv1.Hello) *peerv1.Hello { h.From = 2; return h }, codes.FailedPrecondition, "cannot be a peer of this one"},
		{func(h *peerv1.Hello) *peerv1.Hello { h.From = 9; return h }, codes.PermissionDenied, "member 9 was removed"},
	} {
		hello := tc.change(good())
		stream, err := c.Messages(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&peerv1.MessageBatch{Hello: hello}))
		_, err = stream.Recv()
		require.Equal(t, tc.code, status.Code(err), tc.says)
		require.ErrorContains(t, err, tc.says)

		snap, err := c.Snapshot(t.Context())
		require.NoError(t, err)
		require.NoError(t, snap.Send(&peerv1.SnapshotChunk{Hello: hello}))
		_, err = snap.CloseAndRecv()
		require.Equal(t, tc.code, status.Code(err), tc.says)
	}
	who, err := c.Identify(t.Context(), &peerv1.IdentifyRequest{})
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(uint64(cluster), " 2 n2 1"), fmt.Sprint(who.GetClusterId(), who.GetMemberId(), " ", who.GetName(), " ", who.GetVersion()))
	require.Empty(t, n.messages())
}

func TestMalformedMessagesEndTheStream(t *testing.T) {
	n := &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster}, n, "127.0.0.1:0")
	c := client(t, url)
	for _, raw := range [][]byte{{0xff, 0xff}, {}} {
		stream, err := c.Messages(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&peerv1.MessageBatch{
			Hello:    &peerv1.Hello{Version: 1, ClusterId: cluster, From: 1, To: 2},
			Messages: [][]byte{raw},
		}))
		_, err = stream.Recv()
		require.Equal(t, codes.InvalidArgument, status.Code(err))
	}
	require.Empty(t, n.messages())
}

func TestRemovedMemberLearnsIt(t *testing.T) {
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Removed: func(uint64) bool { return true }}, &fakeNode{}, "127.0.0.1:0")
	told := make(chan struct{}, 16)
	out := New(Config{ID: 1, ClusterID: cluster, OnRemoved: func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}})
	defer out.Close()
	require.NoError(t, out.AddPeer(2, []string{url}))
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		require.Fail(t, "not told")
	}
}

func TestMalformedURLs(t *testing.T) {
	out := New(Config{ID: 1, ClusterID: cluster})
	defer out.Close()
	for _, urls := range [][]string{nil, {"127.0.0.1:2380"}, {"ftp://a:1"}, {"http://a"}, {"http://a:1", "://"}} {
		require.Error(t, out.AddPeer(2, urls), "%v", urls)
	}
	_, err := out.peer(2)
	require.Error(t, err)
}
