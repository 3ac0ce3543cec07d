package node_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waiting notes what it is told, and what was visible at that moment.
type waiting struct {
	mu       sync.Mutex
	resolved []apply.Outcome
	terms    []uint64
	jumped   []uint64
	seen     func(apply.Outcome)
}

func (w *waiting) Waits(uint64) bool { return true }

func (w *waiting) Resolve(o apply.Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolved = append(w.resolved, o)
	if w.seen != nil {
		w.seen(o)
	}
}

func (w *waiting) Applied(term uint64) { w.terms = append(w.terms, term) }
func (w *waiting) Jumped(index uint64) { w.jumped = append(w.jumped, index) }

// raft confirms every read at a fixed index.
type raft struct{ index uint64 }

func (r *raft) ReadIndex(context.Context) (uint64, error) { return r.index, nil }

func (r *raft) ApplyConfChange(raftpb.ConfChangeI) (*raftpb.ConfState, error) {
	return &raftpb.ConfState{Voters: []uint64{1}}, nil
}

// bench is a node on a real store.
type bench struct {
	t       *testing.T
	node    *node.Node
	store   *store.Store
	ring    *outbox.Ring
	waiting *waiting
	index   uint64
	end     context.CancelFunc
}

func start(t *testing.T, dir string) *bench {
	t.Helper()
	return startWith(t, dir, func(*node.Config) {})
}

// startWith lets a test change the configuration.
func startWith(t *testing.T, dir string, change func(*node.Config)) *bench {
	t.Helper()
	b := &bench{t: t, waiting: &waiting{}}
	var err error
	b.store, err = store.Open(filepath.Join(dir, "db"), store.Options{
		NoSync: true, CommitInterval: time.Millisecond,
		OnDurable: func(uint64) {
			if b.node != nil {
				b.node.Refresh()
			}
		},
	})
	require.NoError(t, err)
	machine, err := node.RestoreMachine(node.Database(b.store))
	require.NoError(t, err)
	b.index = machine.Index()
	b.ring = outbox.NewRing(outbox.State{Head: machine.View().KV.Revision()}, 1<<20)
	cfg := node.Config{Machine: machine, Store: node.Database(b.store), Ring: b.ring, Waiting: b.waiting}
	change(&cfg)
	b.node, err = node.New(cfg)
	require.NoError(t, err)
	b.node.UseRaft(&raft{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.node.Run(ctx) }()
	b.end = func() { cancel(); require.NoError(t, <-done); b.end = func() {} }
	t.Cleanup(func() { b.end() })
	return b
}

// close ends everything; an open view would make it hang.
func (b *bench) close() {
	b.t.Helper()
	b.end()
	b.node.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(b.t, b.store.Close(ctx), "every view was released")
}

func entry(t *testing.T, index, term uint64, commands ...*journalv1.Command) *raftpb.Entry {
	t.Helper()
	e := &raftpb.Entry{Index: &index, Term: &term}
	if len(commands) > 0 {
		data, err := (&journalv1.Entry{Version: 1, Commands: commands}).MarshalVT()
		require.NoError(t, err)
		e.Data = data
	}
	return e
}

func encoded(t *testing.T, m proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(m)
	require.NoError(t, err)
	return data
}

func put(t *testing.T, id uint64, key string) *journalv1.Command {
	t.Helper()
	return &journalv1.Command{Id: id, Command: &journalv1.Command_Put{Put: encoded(t, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})}}
}

// An outcome is handed out when a view with the change is published and the feed has it, and not before.
func TestOutcomesComeAfterViewAndFeed(t *testing.T) {
	b := start(t, t.TempDir())
	defer b.close()
	b.waiting.seen = func(o apply.Outcome) {
		view, err := b.node.Current()
		require.NoError(t, err)
		defer view.Release()
		require.GreaterOrEqual(t, view.KV.Revision(), o.Revision)
		_, head := b.ring.Span()
		require.GreaterOrEqual(t, head, o.Revision)
		got, err := view.KV.Range(&pb.RangeRequest{Key: []byte("a")}, view.Values)
		require.NoError(t, err)
		require.Len(t, got.GetKvs(), 1)
	}
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 1, 1), entry(t, 2, 1, put(t, 7, "a"), put(t, 8, "b")), entry(t, 3, 2)}))
	require.Len(t, b.waiting.resolved, 2)
	require.EqualValues(t, 2, b.waiting.resolved[0].Revision)
	require.EqualValues(t, 3, b.waiting.resolved[1].Revision)
	require.Equal(t, []uint64{2}, b.waiting.terms, "the term comes after the outcomes of the round")
}

// After a restart the log is handed in again from before the consistent index: nothing is applied twice.
func TestEntriesAreAppliedOnce(t *testing.T) {
	dir := t.TempDir()
	b := start(t, dir)
	entries := []*raftpb.Entry{entry(t, 1, 1, put(t, 1, "a")), entry(t, 2, 1, put(t, 2, "b")), entry(t, 3, 1, put(t, 3, "c"))}
	require.NoError(t, b.node.Apply(entries[:2]))
	require.NoError(t, b.node.Apply(entries[:2]), "also within one run")
	b.close()
	b = start(t, dir)
	defer b.close()
	require.EqualValues(t, 2, b.index)
	require.NoError(t, b.node.Apply(entries))
	require.Len(t, b.waiting.resolved, 1)
	require.EqualValues(t, 4, b.waiting.resolved[0].Revision)
	from, to := b.ring.Span()
	require.Equal(t, []int64{3, 4}, []int64{from, to})
}

// A compaction changes no key, and followers hear of it all the same.
func TestFollowersHearOfACompaction(t *testing.T) {
	b := start(t, t.TempDir())
	defer b.close()
	compact := &journalv1.Command{Id: 3, Command: &journalv1.Command_Compact{Compact: encoded(t, &pb.CompactionRequest{Revision: 2})}}
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 1, 1, put(t, 1, "a")), entry(t, 2, 1, put(t, 2, "a"))}))
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 3, 1, compact)}))
	require.Equal(t, outbox.State{Head: 3, Compact: 2}, b.ring.State())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, b.node.AwaitCompacted(ctx, 2))
}

// An installed snapshot takes the place of everything: the feed says so, outcomes up to it are given up, readers of the old
// state read on, and readers that wait for its index go on.
func TestSnapshotInstall(t *testing.T) {
	source := start(t, t.TempDir())
	var entries []*raftpb.Entry
	for i := uint64(1); i <= 5; i++ {
		entries = append(entries, entry(t, i, 1, put(t, i, "k")))
	}
	require.NoError(t, source.node.Apply(entries))
	image, err := source.node.Image(t.Context())
	require.NoError(t, err)
	dir := t.TempDir()
	path := filepath.Join(dir, "incoming")
	writeImage(t, path, image)
	require.NoError(t, image.Close())
	source.close()

	b := start(t, dir)
	defer b.close()
	require.NoError(t, b.node.Apply(entries[:1]))
	b.node.UseRaft(&raft{index: 5})
	old, err := b.node.Current()
	require.NoError(t, err)
	cursor := b.ring.Cursor(outbox.Speaker{Leadership: func() outbox.Leadership { return outbox.Leadership{} }}, 1<<20)
	revision := make(chan int64, 1)
	go func() {
		view, err := b.node.Linearize(t.Context())
		if err == nil {
			revision <- view.KV.Revision()
			view.Release()
		}
	}()
	require.NoError(t, b.node.InstallSnapshot(t.Context(), &raftpb.SnapshotMetadata{}, path))
	require.EqualValues(t, 6, <-revision)
	require.Equal(t, []uint64{5}, b.waiting.jumped)
	message, _ := cursor.Next()
	require.True(t, message.GetReset_())
	require.EqualValues(t, 6, message.GetHeadRevision())

	got, err := old.KV.Range(&pb.RangeRequest{Key: []byte("k")}, old.Values)
	require.NoError(t, err)
	require.EqualValues(t, 2, got.GetKvs()[0].GetModRevision())
	old.Release()
}

// Once closed, the node hands out no view, also if a round of apply ends later.
func TestAViewPublishedAfterCloseIsReleased(t *testing.T) {
	b := start(t, t.TempDir())
	b.end()
	b.node.Close()
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 1, 1, put(t, 1, "a"))}))
	_, err := b.node.Current()
	require.Error(t, err)
	b.close()
}

// An idle node keeps no old transaction of the database open: the published view moves to each commit.
func TestIdleViewsFollowCommits(t *testing.T) {
	b := start(t, t.TempDir())
	defer b.close()
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 1, 1, put(t, 1, "a"))}))
	require.NoError(t, b.store.Flush(t.Context()))
	require.Eventually(t, func() bool {
		view, err := b.node.Current()
		require.NoError(t, err)
		defer view.Release()
		return view.Values.Generation() == b.store.Generation()
	}, 10*time.Second, time.Millisecond)
}

func writeImage(t *testing.T, path string, image io.WriterTo) {
	t.Helper()
	f, err := os.Create(filepath.Clean(path))
	require.NoError(t, err)
	_, err = image.WriteTo(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// A compaction that is cut short after any step, committed or not, goes on after the restart and frees in the end what one without a
// break frees.
func TestACompactionGoesOnAfterACrash(t *testing.T) {
	const keys, perEntry = 3500, 125 // some steps' worth
	source := t.TempDir()
	b := start(t, source)
	b.end() // steps are taken by hand
	index := uint64(0)
	fill := func(value string) {
		for first := 0; first < keys; first += perEntry {
			index++
			var commands []*journalv1.Command
			for i := range perEntry {
				request := &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", first+i), Value: []byte(value)}
				commands = append(commands, &journalv1.Command{Id: 1, Command: &journalv1.Command_Put{Put: encoded(t, request)}})
			}
			require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, index, 1, commands...)}))
		}
	}
	fill("old")
	fill("new")
	index++
	compact := &pb.CompactionRequest{Revision: 2 * keys} // below the last put: the last key keeps both its values
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, index, 1,
		&journalv1.Command{Id: 2, Command: &journalv1.Command_Compact{Compact: encoded(t, compact)}})}))
	require.NoError(t, b.store.Flush(t.Context()))
	image := filepath.Join(source, "db")
	steps := 0
	for {
		// The process is killed here: the next one has the file as it is now.
		dir := t.TempDir()
		data, err := os.ReadFile(image)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "db"), data, 0o600))
		resumed := start(t, dir)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		require.NoError(t, resumed.node.AwaitCompacted(ctx, compact.Revision))
		cancel()
		require.Equal(t, keys+1, revisions(t, resumed.store), "after %d steps", steps)
		resumed.close()
		done, err := b.node.CompactStep()
		require.NoError(t, err)
		steps++
		require.NoError(t, b.store.Flush(t.Context()))
		if done {
			break
		}
	}
	require.Greater(t, steps, 3)
	require.Equal(t, keys+1, revisions(t, b.store))
	b.close()
}

// While entries come compaction rests longer.
func TestCompactionMakesWay(t *testing.T) {
	const rest = time.Hour
	b := startWith(t, t.TempDir(), func(cfg *node.Config) { cfg.CompactBatch, cfg.CompactSleep = 1, rest })
	b.end()
	defer b.close()
	for i := uint64(1); i <= 10; i++ {
		require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, i, 1, put(t, i, "k"))}))
	}
	compact := &journalv1.Command{Id: 3, Command: &journalv1.Command_Compact{Compact: encoded(t, &pb.CompactionRequest{Revision: 10})}}
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 11, 1, compact)}))
	step := func() time.Duration {
		done, err := b.node.CompactStep()
		require.NoError(t, err)
		require.False(t, done)
		return b.node.CompactWait()
	}
	require.Greater(t, step(), 2*rest)
	require.LessOrEqual(t, step(), rest)
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, 12, 1, put(t, 12, "k"))}))
	require.Greater(t, step(), 2*rest)
	require.LessOrEqual(t, step(), rest)
}

func revisions(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	reader, err := s.Reader()
	require.NoError(t, err)
	defer reader.Close()
	var damage error
	for range reader.Stored(&damage) {
		n++
	}
	require.NoError(t, damage)
	return n
}

// Compaction goes in steps of the given size with a rest after each, and waits while the store is busy. Entries are applied between the
// steps, and those who wait for its end are told of it.
func TestCompactionPaces(t *testing.T) {
	var busy atomic.Bool
	busy.Store(true)
	const rest = 20 * time.Millisecond
	b := startWith(t, t.TempDir(), func(cfg *node.Config) {
		cfg.CompactBatch, cfg.CompactSleep, cfg.Busy = 10, rest, busy.Load
	})
	defer b.close()
	const puts = 100
	for i := uint64(1); i <= puts; i++ {
		require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, i, 1, put(t, i, "k"))}))
	}
	compact := &journalv1.Command{Id: 3, Command: &journalv1.Command_Compact{Compact: encoded(t, &pb.CompactionRequest{Revision: puts + 1})}}
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, puts+1, 1, compact)}))
	stored := func() (n int) {
		view, err := b.node.Current()
		require.NoError(t, err)
		defer view.Release()
		var damage error
		for range view.Values.Stored(&damage) {
			n++
		}
		require.NoError(t, damage)
		return n
	}
	short, cancel := context.WithTimeout(t.Context(), 3*rest)
	defer cancel()
	require.ErrorIs(t, b.node.AwaitCompacted(short, puts+1), context.DeadlineExceeded, "it waits while the store is busy")
	require.Equal(t, puts, stored())

	busy.Store(false)
	start := time.Now()
	left := puts
	require.Eventually(t, func() bool { left = stored(); return left < puts }, 10*time.Second, time.Millisecond)
	require.Zero(t, left%10, "a step drops as much as it may")
	require.NoError(t, b.node.Apply([]*raftpb.Entry{entry(t, puts+2, 1, put(t, 7, "other"))}), "entries go between the steps")
	ctx, cancel2 := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel2()
	require.NoError(t, b.node.AwaitCompacted(ctx, puts+1))
	require.Equal(t, 2, stored())
	require.GreaterOrEqual(t, time.Since(start), 9*rest, "ten steps, with a rest after each")
}
