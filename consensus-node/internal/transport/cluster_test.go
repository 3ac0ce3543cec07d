package transport

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// table is a small durable state: all values in order, written as a file now and then.
type table struct {
	Index, Term uint64
	Conf        []byte
	Values      []string
}

type state struct {
	path string
	node *raftnode.Node

	mu       sync.Mutex
	now      table
	durable  uint64
	installs int
}

func loadState(t *testing.T, path string) *state {
	t.Helper()
	s := &state{path: path}
	if b, err := os.ReadFile(path); err == nil {
		require.NoError(t, gob.NewDecoder(bytes.NewReader(b)).Decode(&s.now))
		s.durable = s.now.Index
	}
	return s
}

func (s *state) Apply(entries []*raftpb.Entry) error {
	for _, e := range entries {
		var conf []byte
		if e.GetType() == raftpb.EntryConfChange {
			cc := &raftpb.ConfChange{}
			if err := proto.Unmarshal(e.GetData(), cc); err != nil {
				return err
			}
			cs, err := s.node.ApplyConfChange(cc)
			if err != nil {
				return err
			}
			if conf, err = proto.Marshal(cs); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.now.Index, s.now.Term = e.GetIndex(), e.GetTerm()
		if conf != nil {
			s.now.Conf = conf
		} else if len(e.GetData()) > 0 {
			s.now.Values = append(s.now.Values, string(e.GetData()))
		}
		s.mu.Unlock()
	}
	return s.flush()
}

func (s *state) encode() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s.now); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (s *state) flush() error {
	b := s.encode()
	if err := os.WriteFile(s.path, b, 0o600); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = s.now.Index
	return nil
}

func (s *state) InstallSnapshot(_ context.Context, meta *raftpb.SnapshotMetadata, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = table{}
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&s.now); err != nil {
		return err
	}
	if s.now.Index != meta.GetIndex() {
		return fmt.Errorf("image of %d, message of %d", s.now.Index, meta.GetIndex())
	}
	s.durable = s.now.Index
	s.installs++
	return os.Rename(path, s.path)
}

func (s *state) confState() *raftpb.ConfState {
	s.mu.Lock()
	defer s.mu.Unlock()
	cs := &raftpb.ConfState{}
	if err := proto.Unmarshal(s.now.Conf, cs); err != nil {
		panic(err)
	}
	return cs
}

type stateImage struct {
	meta *raftpb.SnapshotMetadata
	data []byte
}

func (s *state) Image(context.Context) (raftnode.Image, error) {
	b := s.encode()
	var t table
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(&t); err != nil {
		return nil, err
	}
	cs := &raftpb.ConfState{}
	if err := proto.Unmarshal(t.Conf, cs); err != nil {
		return nil, err
	}
	return &stateImage{&raftpb.SnapshotMetadata{Index: &t.Index, Term: &t.Term, ConfState: cs}, b}, nil
}

func (i *stateImage) Metadata() *raftpb.SnapshotMetadata { return i.meta }
func (i *stateImage) Size() int64                        { return int64(len(i.data)) }
func (i *stateImage) Close() error                       { return nil }
func (i *stateImage) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i.data)
	return int64(n), err
}

func (s *state) Durable() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

func (s *state) values() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.now.Values...)
}

// real is a member with a log on disk and a gRPC server.
type real struct {
	id    uint64
	dir   string
	urls  map[uint64]string
	peers []raft.Peer // for the first start
	state *state
	node  *raftnode.Node
	stop  func()
}

func (r *real) start(t *testing.T) {
	t.Helper()
	logDir := filepath.Join(r.dir, "log")
	opts := wal.Options{SegmentBytes: 1 << 20}
	r.state = loadState(t, filepath.Join(r.dir, "db"))
	cfg := raftnode.Config{
		ID: r.id, Tick: 20 * time.Millisecond, SnapshotCount: 20, CatchUpEntries: 5,
		Applied: r.state.now.Index, AppliedTerm: r.state.now.Term, ConfState: r.state.confState(), Applier: r.state,
	}
	var log *wal.Log
	var err error
	if wal.Exists(vfs.OS{}, logDir) {
		var was *wal.State
		log, was, err = wal.Open(vfs.OS{}, logDir, opts)
		require.NoError(t, err)
		cfg.Mark, cfg.Entries, cfg.HardState = was.Snapshot, was.Entries, was.HardState
	} else {
		log, err = wal.Create(vfs.OS{}, logDir, wal.Metadata{}, opts)
		require.NoError(t, err)
		cfg.Bootstrap = r.peers
	}
	own := Config{ID: r.id, ClusterID: cluster, Dir: r.dir}
	out := New(own)
	cfg.Log, cfg.Transport = log, out
	r.node, err = raftnode.New(cfg)
	require.NoError(t, err)
	r.state.node = r.node
	out.Start(r.node)
	for id, url := range r.urls {
		require.NoError(t, out.AddPeer(id, []string{url}))
	}
	_, stopServer := serve(t, own, r.node, strings.TrimPrefix(r.urls[r.id], "http://"))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.node.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(t, <-ended)
			out.Close()
			stopServer()
			require.NoError(t, log.Close())
		})
	}
	t.Cleanup(r.stop)
}

// TestMembersOverGRPC runs three members with logs on disk: they elect, replicate, one falls behind the log and catches up by an
// image, and all are started again.
func TestMembersOverGRPC(t *testing.T) {
	members := newMembers(t)
	put := func(value string) {
		t.Helper()
		eventually(t, "a leader takes "+value, func() bool {
			for _, m := range members {
				if _, err := m.node.Propose(t.Context(), []byte(value)); err == nil {
					return true
				}
			}
			return false
		})
	}
	has := func(m *real, want ...string) {
		t.Helper()
		eventually(t, fmt.Sprint("member ", m.id, " has all"), func() bool {
			got := m.state.values()
			return len(got) >= len(want) && fmt.Sprint(got[len(got)-len(want):]) == fmt.Sprint(want)
		})
	}
	put("a")
	for _, m := range members {
		has(m, "a")
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := m.node.ReadIndex(ctx)
		require.NoError(t, err)
		cancel()
	}

	var away *real
	for _, m := range members {
		if m.node.Status().State != raft.StateLeader {
			away = m
		}
	}
	away.stop()
	for i := range 100 {
		put(fmt.Sprint("v", i))
		if i%25 == 0 {
			time.Sleep(30 * time.Millisecond) // for a tick: the log is cut
		}
	}
	put("big" + strings.Repeat("x", 300<<10))
	time.Sleep(50 * time.Millisecond)
	away.start(t)
	put("b")
	for _, m := range members {
		has(m, "b")
	}
	require.Equal(t, 1, away.state.installs)
	require.Equal(t, members[0].state.values(), away.state.values())

	for _, m := range members {
		m.stop()
	}
	for _, m := range members {
		m.start(t)
	}
	put("c")
	for _, m := range members {
		has(m, "b", "c")
		require.Len(t, m.state.values(), 104)
	}
}

func newMembers(t *testing.T) []*real {
	t.Helper()
	urls := map[uint64]string{}
	var peers []raft.Peer
	var members []*real
	for id := uint64(1); id <= 3; id++ {
		url, stop := serve(t, Config{ID: id}, &fakeNode{}, "127.0.0.1:0") // finds a free port
		stop()
		urls[id] = url
		peers = append(peers, raft.Peer{ID: id})
		members = append(members, &real{id: id, dir: t.TempDir()})
	}
	for _, m := range members {
		m.urls, m.peers = urls, peers
		m.start(t)
	}
	return members
}
