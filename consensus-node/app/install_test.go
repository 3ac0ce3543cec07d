package app

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// shortLogs make members that were away for a moment need a snapshot.
func shortLogs() []string { return []string{"--snapshot-count=10", "--snapshot-catchup-entries=3"} }

// busy writes what a member that is away will find: keys, some of them deleted, leases and a compaction. It ends once the log of who
// leads is cut above the index, and gives the last revision.
func busy(t *testing.T, members []*member3, above uint64) int64 {
	t.Helper()
	leader := leaderOf(t, members)
	c := newCaller(t, leader.calls)
	lease := read[pb.LeaseGrantResponse](t, c.do(call(t, consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: 600}))[0])
	for i := 0; ; i++ {
		key := fmt.Appendf(nil, "busy-%d", i%7)
		written := read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: key, Lease: lease.GetID()}))[0])
		if i%5 == 4 {
			c.do(call(t, consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: key}))
		}
		if i == 10 {
			compact := &pb.CompactionRequest{Revision: written.GetHeader().GetRevision() - 5}
			read[pb.CompactionResponse](t, c.do(call(t, consensusv1.Method_METHOD_COMPACT, compact))[0])
		}
		if cut := leader.node.raft.LogBegins(); i > 20 && cut > above {
			return written.GetHeader().GetRevision()
		}
		require.Less(t, i, 10_000, "the log is not cut")
	}
}

func (m *member3) index() uint64 { return m.node.raft.Status().Applied }

func followerOf(t *testing.T, members []*member3) *member3 {
	t.Helper()
	leader := leaderOf(t, members)
	for _, m := range members {
		if m != leader {
			return m
		}
	}
	return nil
}

func without(members []*member3, away *member3) (others []*member3) {
	for _, m := range members {
		if m != away {
			others = append(others, m)
		}
	}
	return others
}

var errKilled = errors.New("killed here")

// A node that is killed anywhere while it takes over a snapshot goes on from there at its next start.
func TestKilledDuringAnInstall(t *testing.T) {
	t.Parallel()
	members := newCluster(t, shortLogs()...)
	put(t, members, "a")
	awaitNames(t, members)
	for _, step := range []raftnode.SnapshotStep{raftnode.SnapshotReceived, raftnode.SnapshotMarked, raftnode.SnapshotInstalled} {
		away := followerOf(t, members)
		before := away.index()
		require.NoError(t, away.stop())
		busy(t, without(members, away), before)

		copied := filepath.Join(t.TempDir(), "copy")
		var once sync.Once
		reached := make(chan struct{})
		away.cfg.onSnapshot = func(at raftnode.SnapshotStep) error {
			if at != step {
				return nil
			}
			once.Do(func() {
				if err := os.CopyFS(copied, os.DirFS(away.cfg.DataDir)); err != nil {
					t.Errorf("copy of the data directory: %v", err)
				}
				close(reached)
			})
			return errKilled
		}
		away.start(listen(t, away.address))
		select {
		case <-reached:
		case <-time.After(time.Minute):
			t.Fatalf("%s was not reached", step)
		}
		_ = away.stop() // with the failure that it was given

		away.cfg.DataDir, away.cfg.onSnapshot = copied, nil
		incoming, err := filepath.Glob(filepath.Join(away.cfg.snapDir(), "incoming-*"))
		require.NoError(t, err)
		require.Len(t, incoming, map[raftnode.SnapshotStep]int{raftnode.SnapshotReceived: 1, raftnode.SnapshotMarked: 1}[step], "%s", step)
		node, err := Open(away.cfg, discarding())
		require.NoError(t, err, "%s", step)
		begins := node.disk.state.Snapshot.Index
		if step == raftnode.SnapshotReceived {
			require.LessOrEqual(t, begins, before, "the old state goes on")
		} else {
			require.Greater(t, begins, before)
			require.Equal(t, begins, node.raft.Status().Applied, "the image is the state")
		}
		require.NoError(t, node.Close())
		left, err := filepath.Glob(filepath.Join(away.cfg.snapDir(), "incoming-*"))
		require.NoError(t, err)
		require.Empty(t, left)

		away.start(listen(t, away.address))
		equalHashes(t, members, put(t, members, "after-"+string(step)))
	}
}

// cutOff parts a member from the others, in both directions, until heal.
func cutOff(m *member3, others []*member3) {
	for _, o := range others {
		m.node.transport.RemovePeer(o.node.memberID)
		o.node.transport.RemovePeer(m.node.memberID)
	}
}

func heal(t *testing.T, m *member3, others []*member3) {
	t.Helper()
	for _, o := range others {
		require.NoError(t, m.node.transport.AddPeer(o.node.memberID, o.cfg.AdvertisePeerURLs.Strings()))
		require.NoError(t, o.node.transport.AddPeer(m.node.memberID, m.cfg.AdvertisePeerURLs.Strings()))
	}
}

// A leader that was cut off gets a snapshot while it runs: followers of its feed hear of the jump before anything else, views stay what
// they were, reads that waited are answered from the new state, and writes that raft took are settled as open.
func TestSnapshotUnderARunningNode(t *testing.T) {
	t.Parallel()
	members := newCluster(t, shortLogs()...)
	put(t, members, "a")
	awaitNames(t, members)
	old := leaderOf(t, members)
	others := without(members, old)
	feed, err := consensusv1.NewConsensusClient(old.calls).Feed(t.Context(), &consensusv1.FeedRequest{Name: "test"})
	require.NoError(t, err)
	messages := make(chan *feedv1.Message, 1<<16)
	go func() {
		for {
			m, err := feed.Recv()
			if err != nil {
				return
			}
			messages <- m
		}
	}()
	kept, err := old.node.machine.Current()
	require.NoError(t, err)
	head := kept.KV.Revision()

	cutOff(old, others)
	began := time.Now()
	answers := make(chan *consensusv1.Answer, 1)
	c := newCaller(t, old.calls)
	lost := call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("lost")})
	go func() { answers <- c.do(lost)[0] }()
	require.Eventually(t, func() bool { // it may see the member list once more and join the others again
		cutOff(old, others)
		return old.node.raft.Status().Leader == 0
	}, 20*time.Second, 5*time.Millisecond)
	reader := newCaller(t, old.calls)
	reads := make(chan *consensusv1.Answer, 1)
	question := call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("busy-6")})
	go func() { reads <- reader.do(question)[0] }()
	last := busy(t, others, old.index()+1)
	heal(t, old, others)

	write := <-answers
	require.Less(t, time.Since(began), old.cfg.limits().RequestTimeout, "the write waited for its time-out")
	require.False(t, write.GetNotProposed(), "the snapshot cannot tell")
	require.Equal(t, codes.Unavailable, codes.Code(write.GetCode()), write.GetMessage())
	require.GreaterOrEqual(t, read[pb.RangeResponse](t, <-reads).GetHeader().GetRevision(), last)

	// The feed: nothing above the old head before the reset, and the reset says all that there is.
	for reset := false; !reset; {
		m := <-messages
		if reset = m.GetReset_(); !reset {
			require.LessOrEqual(t, m.GetLastRevision(), head)
			require.LessOrEqual(t, m.GetHeadRevision(), head)
			continue
		}
		require.Greater(t, m.GetHeadRevision(), head)
		require.Equal(t, m.GetHeadRevision(), m.GetLastRevision())
		require.Positive(t, m.GetCompactRevision())
		require.Positive(t, m.GetLeaseSequence())
		require.Empty(t, m.GetRevisions())
	}

	// The view of before still reads its own file.
	got, err := kept.KV.Range(&pb.RangeRequest{Key: []byte("a")}, kept.Values)
	require.NoError(t, err)
	require.Equal(t, head, kept.KV.Revision())
	require.Len(t, got.GetKvs(), 1)
	kept.Release()
	equalHashes(t, members, put(t, members, "z"))
}

// What is not the image that was announced is refused before the log is marked for it.
func TestAnotherImageIsRefused(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	image, err := node.machine.Image(t.Context())
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(filepath.Clean(path))
	require.NoError(t, err)
	_, err = image.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, errors.Join(f.Close(), image.Close()))
	require.NoError(t, checkImage(image.Metadata(), path))
	for says, change := range map[string]func(*raftpb.SnapshotMetadata){
		"announced as of index": func(m *raftpb.SnapshotMetadata) { m.Index = new(m.GetIndex() + 1) },
		"in term":               func(m *raftpb.SnapshotMetadata) { m.Term = new(m.GetTerm() + 1) },
		"membership":            func(m *raftpb.SnapshotMetadata) { m.ConfState = &raftpb.ConfState{Voters: []uint64{1}} },
	} {
		changed := proto.Clone(image.Metadata()).(*raftpb.SnapshotMetadata)
		change(changed)
		m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{Metadata: changed}}
		err := receiver{node.raft}.ReceiveSnapshot(t.Context(), m, path)
		require.ErrorIs(t, err, raftnode.ErrSnapshotRefused)
		require.ErrorContains(t, err, says)
	}
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("x", 1<<16)), 0o600))
	require.ErrorContains(t, checkImage(image.Metadata(), path), "cannot be read")
}

// Old segments of the log go while writes go on, so the log takes as much space as its newest entries need.
func TestLogOnDiskIsBounded(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, t.TempDir(), "--snapshot-count=20", "--snapshot-catchup-entries=10")
	node := runNode(t, cfg)
	c := newCaller(t, node.direct)
	const values, size = 160, 100 << 10
	for i := range values {
		request := &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%4), Value: make([]byte, size)}
		read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, request))[0])
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		bytes := int64(0)
		files, err := os.ReadDir(cfg.logDir())
		require.NoError(c, err)
		for _, f := range files {
			info, err := f.Info()
			if err == nil { // it may just go
				bytes += info.Size()
			}
		}
		// 30 entries of 100 KiB, in segments of 1 MiB, one of them begun and one spare.
		require.LessOrEqual(c, bytes, int64(7<<20), "of %d written", values*size)
	}, 20*time.Second, 50*time.Millisecond)
}

// What is less than an image needs to make progress is refused, with one line.
func TestSnapshotRate(t *testing.T) {
	t.Parallel()
	cfg := NewConfig()
	cfg.Name, cfg.HeartbeatMs, cfg.ElectionMs, cfg.SnapshotBytesPerSecond = "n", 100, 1000, snapshotRateLeast-1
	require.ErrorContains(t, cfg.Finish(), "--snapshot-send-bytes-per-second=1048575 is too little")
	cfg = testConfig(t, t.TempDir())
	require.Equal(t, []uint64{10_000, 5_000, 64 << 20}, []uint64{cfg.SnapshotCount, cfg.CatchUpEntries, cfg.SnapshotBytesPerSecond})
}
