package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/grpcserver"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

func TestMain(m *testing.M) {
	if how := os.Getenv(diskChildEnv); how != "" {
		os.Exit(diskChild(how))
	}
	goleak.VerifyTestMain(m)
}

// member3 is one of three nodes that talk over real connections, and may be stopped and started again.
type member3 struct {
	t       *testing.T
	cfg     *Config
	address string

	// free are the free bytes of its disk.
	free *atomic.Int64

	node    *Node
	calls   *direct.Conn
	cancel  context.CancelFunc
	done    chan error
	running bool
}

// newCluster starts three nodes on free ports.
func newCluster(t *testing.T, args ...string) []*member3 {
	t.Helper()
	return newClusterWith(t, func(*Config) {}, args...)
}

// newClusterWith starts three nodes whose configuration was changed first.
func newClusterWith(t *testing.T, set func(*Config), args ...string) []*member3 {
	t.Helper()
	listeners, cluster := make([]net.Listener, 3), make([]string, 3)
	for i := range listeners {
		listeners[i] = listen(t, "127.0.0.1:0")
		cluster[i] = fmt.Sprintf("n%d=http://%s", i+1, listeners[i].Addr())
	}
	members := make([]*member3, 3)
	for i, listener := range listeners {
		url := "http://" + listener.Addr().String()
		flags := append([]string{
			fmt.Sprintf("--name=n%d", i+1), "--initial-cluster=" + strings.Join(cluster, ","),
			"--initial-advertise-peer-urls=" + url, "--listen-peer-urls=" + url,
		}, args...)
		m := &member3{t: t, address: listener.Addr().String(), cfg: testConfig(t, t.TempDir(), flags...), free: &atomic.Int64{}}
		m.free.Store(1 << 40)
		m.cfg.diskFree = func() (int64, error) { return m.free.Load(), nil }
		members[i] = m
		set(m.cfg)
		m.start(listener)
		t.Cleanup(func() { require.NoError(t, m.stop()) })
	}
	return members
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	return listener
}

func (m *member3) start(listener net.Listener) {
	m.t.Helper()
	logger := slog.New(slog.DiscardHandler)
	node, err := Open(m.cfg, discarding())
	require.NoError(m.t, err)
	m.node, m.calls, m.running = node, direct.New(Program), true
	node.RegisterConsensus(m.calls)
	server := grpcserver.New(grpcserver.Config{Logger: logger, Internal: true, RecvBytesMax: peerBytesMax, GraceMax: 10 * time.Millisecond}, listener)
	node.Register(server)
	group := lifecycle.NewGroup(logger, 0, append(node.Parts(), server.Part("server"), node.LastPart())...)
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	m.done = make(chan error, 1)
	go func() { m.done <- group.Run(ctx) }()
}

func (m *member3) stop() error {
	if !m.running {
		return nil
	}
	m.running = false
	m.calls.Close()
	m.cancel()
	return errors.Join(<-m.done, m.node.Close())
}

// leaderOf waits until one of the running members leads, and all of them know it.
func leaderOf(t *testing.T, members []*member3) *member3 {
	t.Helper()
	var leader *member3
	require.Eventually(t, func() bool {
		leader = nil
		for _, m := range members {
			if m.running && m.node.raft.Status().Leader == m.node.memberID {
				leader = m
			}
		}
		for _, m := range members {
			if leader != nil && m.running && m.node.raft.Status().Leader != leader.node.memberID {
				return false
			}
		}
		return leader != nil
	}, 20*time.Second, 5*time.Millisecond)
	return leader
}

// No two members commit to their databases at the same time, also after one has gone.
func TestMembersCommitInTurns(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--strict-reconfig-check=false") // with one away it refuses until all others are known to be well
	turns := func(members []*member3) func() bool {
		return func() bool {
			seen := map[time.Duration]bool{}
			for i := range members {
				seen[store.DefaultCommitInterval/time.Duration(len(members))*time.Duration(i)] = true
			}
			for _, m := range members {
				delete(seen, m.node.disk.store.Turn())
			}
			return len(seen) == 0
		}
	}
	require.Eventually(t, turns(members), 20*time.Second, 5*time.Millisecond)
	leader := leaderOf(t, members)
	gone := slices.IndexFunc(members, func(m *member3) bool { return m != leader })
	away := members[gone]
	require.NoError(t, away.stop())
	rest := slices.Delete(slices.Clone(members), gone, gone+1)
	change[pb.MemberRemoveResponse](t, rest, call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: away.node.memberID}))
	require.Eventually(t, turns(rest), 20*time.Second, 5*time.Millisecond)
}

// put writes through whoever leads, and sends again what was surely not proposed.
func put(t *testing.T, members []*member3, key string) int64 {
	t.Helper()
	for range 100 {
		c := newCaller(t, leaderOf(t, members).calls)
		answer := c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key), Value: []byte(key)}))[0]
		if answer.GetNotProposed() {
			continue
		}
		return read[pb.PutResponse](t, answer).GetHeader().GetRevision()
	}
	t.Fatal("no leader takes a write")
	return 0
}

// equalHashes waits until all members are at a revision and says that they hold the same.
func equalHashes(t *testing.T, members []*member3, revision int64) {
	t.Helper()
	hashes := map[uint32]bool{}
	for _, m := range members {
		view, err := m.node.machine.AtRevision(t.Context(), revision)
		require.NoError(t, err)
		view.Release()
		answer := newCaller(t, m.calls).do(call(t, consensusv1.Method_METHOD_HASH_KV, &pb.HashKVRequest{Revision: revision}))[0]
		hashes[read[pb.HashKVResponse](t, answer).GetHash()] = true
	}
	require.Len(t, hashes, 1)
}

// awaitNames waits until every member knows the names and client URLs of all: from then on the member list changes no more.
func awaitNames(t *testing.T, members []*member3) {
	t.Helper()
	for _, m := range members {
		require.Eventually(t, func() bool {
			view, err := m.node.machine.Current()
			require.NoError(t, err)
			defer view.Release()
			named := 0
			for _, m := range view.Members.Members() {
				if m.Name != "" && len(m.ClientURLs) > 0 {
					named++
				}
			}
			return named == len(members)
		}, 20*time.Second, 10*time.Millisecond)
	}
}

// With the leader gone the others go on; it comes back and holds what they wrote. Leadership is handed over before a stop,
// and every member's name and URLs find their way into the list.
func TestThreeNodesOutliveTheirLeader(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	for i := range 5 {
		put(t, members, fmt.Sprintf("before-%d", i))
	}
	awaitNames(t, members)
	first := leaderOf(t, members)
	require.NoError(t, first.stop())
	for i := range 5 {
		put(t, members, fmt.Sprintf("without-%d", i))
	}
	first.start(listen(t, first.address))
	last := put(t, members, "after")
	equalHashes(t, members, last)
}

// A write that a leader took and could not commit is settled as soon as the next leader's log shows that it is lost.
func TestALostWriteIsSaidToBeNotProposed(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	old := leaderOf(t, members)
	var others []*member3
	for _, m := range members {
		if m != old {
			others = append(others, m)
		}
	}
	deaf := func() { // the leader hears, and is heard no more
		for _, m := range others {
			old.node.transport.RemovePeer(m.node.memberID)
		}
	}
	deaf()
	c := newCaller(t, old.calls)
	data, err := proto.Marshal(&pb.PutRequest{Key: []byte("lost")})
	require.NoError(t, err)
	answers := make(chan *consensusv1.Answer, 1)
	go func() { answers <- c.do(&consensusv1.Call{Method: consensusv1.Method_METHOD_PUT, Request: data})[0] }()
	require.Eventually(t, func() bool {
		deaf() // its last look at the member list may have come after the first time
		led := false
		for _, m := range others {
			led = led || m.node.raft.Status().Leader == m.node.memberID
		}
		return led && old.node.raft.Status().Leader != old.node.memberID
	}, 20*time.Second, 10*time.Millisecond)
	for _, m := range others {
		require.NoError(t, old.node.transport.AddPeer(m.node.memberID, m.cfg.AdvertisePeerURLs.Strings()))
	}
	select {
	case answer := <-answers:
		require.True(t, answer.GetNotProposed(), answer.GetMessage())
		require.Equal(t, codes.FailedPrecondition, codes.Code(answer.GetCode()))
	case <-time.After(old.cfg.limits().RequestTimeout - 200*time.Millisecond):
		t.Fatal("the write waits for its time-out")
	}
	last := put(t, members, "b")
	equalHashes(t, members, last)
	got := newCaller(t, old.calls).do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("lost")}))[0]
	require.Zero(t, read[pb.RangeResponse](t, got).GetCount())
}

// compact compacts through whoever leads.
func compact(t *testing.T, members []*member3, revision int64) {
	t.Helper()
	for range 100 {
		c := newCaller(t, leaderOf(t, members).calls)
		answer := c.do(call(t, consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: revision, Physical: true}))[0]
		if !answer.GetNotProposed() {
			read[pb.CompactionResponse](t, answer)
			return
		}
	}
	t.Fatal("no leader takes a compaction")
}
