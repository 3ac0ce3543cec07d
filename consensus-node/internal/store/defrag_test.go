package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// applyEntries applies and commits the entries from from to to.
func applyEntries(t *testing.T, s *Store, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		require.NoError(t, s.Apply(crashEntry(i)))
	}
	require.NoError(t, s.Flush(t.Context()))
}

// The file shrinks to what is in use, its content and hash stay, and a Reader of before reads on from the old file.
func TestDefragment(t *testing.T) {
	var mu sync.Mutex
	var durable []uint64
	opts := testOptions()
	opts.OnDurable = func(index uint64) {
		mu.Lock()
		defer mu.Unlock()
		durable = append(durable, index)
	}
	told := func() []uint64 {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(durable)
	}
	s := open(t, filepath.Join(t.TempDir(), "db"), opts)
	first := reader(t, s)
	opened := first.Generation()
	first.Close()
	const entries = 5000
	applyEntries(t, s, 1, entries/2)
	applyEntries(t, s, entries/2+1, entries)
	var drops Batch
	drops.Index = entries
	for main := int64(2); main <= entries+1-crashLag; main++ {
		for sub := range (main-1)%4 + 1 {
			if sub > 0 {
				drops.Drop = append(drops.Drop, mvcc.Drop{Rev: rev(main, sub)})
			}
		}
	}
	require.NoError(t, s.Apply(drops))
	require.NoError(t, s.Flush(t.Context()))
	before := reader(t, s)
	want, size, inUse := content(t, before), s.Size(), s.SizeInUse()
	hash, err := s.Hash(t.Context())
	require.NoError(t, err)
	require.Greater(t, size, 2*inUse)

	commits := int(before.Generation() - opened)
	require.Eventually(t, func() bool { return len(told()) == commits }, 10*time.Second, time.Millisecond, "each commit is told, the last one perhaps after Flush")
	require.NoError(t, s.Defragment(t.Context()))
	require.LessOrEqual(t, s.Size(), inUse+inUse/4)
	require.LessOrEqual(t, s.SizeInUse(), s.Size())
	require.Equal(t, []uint64{entries}, told()[commits:], "those who publish Readers are told to take a new one")
	require.NoFileExists(t, s.path+copySuffix)
	after := reader(t, s)
	require.Greater(t, after.Generation(), before.Generation())
	require.Equal(t, want, content(t, after))
	require.Equal(t, want, content(t, before), "an old reader sees another file")
	again, err := s.Hash(t.Context())
	require.NoError(t, err)
	require.Equal(t, hash, again)
	oldFile := before.v.base.file
	before.Close()
	<-oldFile.closed

	// The new file is one that commits go to and that is synced.
	require.NoError(t, s.Apply(crashEntry(entries+1)))
	after.Close()
	require.NoError(t, s.Close(t.Context()))
	s = open(t, s.path, testOptions())
	require.EqualValues(t, entries+1, s.Durable())
}

// A database without a revision, since none was written yet or all were dropped, keeps the empty bucket.
func TestDefragmentWithoutRevisions(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	require.NoError(t, s.Defragment(t.Context()))

	require.NoError(t, s.Apply(Batch{Index: 1, Term: 1, Writes: []mvcc.Write{putAt(rev(2, 0), "key", "value")}}))
	require.NoError(t, s.Apply(Batch{Index: 1, Drop: []mvcc.Drop{{Rev: rev(2, 0)}}}))
	require.NoError(t, s.Defragment(t.Context()))
	require.Empty(t, content(t, reader(t, s)))

	require.NoError(t, s.Apply(Batch{Index: 2, Term: 1, Writes: []mvcc.Write{putAt(rev(3, 0), "key", "value")}}))
	require.NoError(t, s.Flush(t.Context()))
	require.Len(t, content(t, reader(t, s)), 1)
}

// Entries are applied and committed, and Readers come and go, while the file is copied and replaced.
func TestDefragmentUnderLoad(t *testing.T) {
	opts := testOptions()
	opts.CommitInterval, opts.CommitOps, opts.MaxPendingBytes = time.Millisecond, 50, 256<<10
	s := open(t, filepath.Join(t.TempDir(), "db"), opts)
	applyEntries(t, s, 1, 500)
	stop, index := make(chan struct{}), uint64(500)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			index++
			err := s.Apply(crashEntry(index))
			if err == nil && index%50 == 0 {
				err = s.Flush(context.Background()) // or it would run away from the copy
			}
			if err != nil {
				t.Errorf("apply %d: %v", index, err)
				return
			}
		}
	})
	group.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			r, err := s.Reader()
			if err == nil {
				err = seesEntry(r)
				r.Close()
			}
			if err != nil {
				t.Errorf("reader: %v", err)
				return
			}
		}
	})
	var two sync.WaitGroup
	for range 2 { // at once, one after the other
		two.Go(func() {
			for range 2 {
				if err := s.Defragment(context.Background()); err != nil {
					t.Errorf("defragment: %v", err)
				}
			}
		})
	}
	two.Wait()
	close(stop)
	group.Wait()
	requirePrefixAfterFlush(t, s, index)
	require.NoError(t, s.Close(t.Context()))
	s = open(t, s.path, testOptions())
	requirePrefix(t, s, index)
}

func requirePrefixAfterFlush(t *testing.T, s *Store, index uint64) {
	t.Helper()
	require.NoError(t, s.Flush(t.Context()))
	requirePrefix(t, s, index)
}

// Whatever is committed between two steps is in the new file: revisions, drops of what was copied already, rows in their order, and
// the index.
func TestDefragmentCatchesUp(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	applyEntries(t, s, 1, 200)
	index := uint64(200)
	row := func(key string, remove bool) {
		index++
		b := crashEntry(index)
		b.Rows = append(b.Rows, Row{Bucket: BucketLease, Key: []byte(key), Value: []byte("v"), Delete: remove})
		require.NoError(t, s.Apply(b))
		require.NoError(t, s.Flush(t.Context()))
	}
	row("early", false)
	var steps []string
	s.onStep = func(step string) {
		steps = append(steps, step)
		switch step {
		case "chunk", "round", "rows":
			applyEntries(t, s, index+1, index+10)
			index += 10
			row(step, false)
			if step == "rows" {
				row("early", true)
				row("again", false)
				row("again", true)
				row("again", false)
			}
		default: // commits wait, and Apply does not
			index++
			require.NoError(t, s.Apply(crashEntry(index)))
		}
	}
	require.NoError(t, s.Defragment(t.Context()))
	require.Equal(t, "chunk round chunk chunk rows copied synced renamed", strings.Join(steps, " "))
	requirePrefixAfterFlush(t, s, index)
	require.NoError(t, s.Close(t.Context()))
	s = open(t, s.path, testOptions())
	requirePrefix(t, s, index)
	var rows []string
	require.NoError(t, s.ForEach(BucketLease, func(k, _ []byte) error { rows = append(rows, string(k)); return nil }))
	require.Equal(t, []string{"again", "chunk", "round", "rows"}, rows)
}

// A crash at any step leaves the old file or the new one, whole, and no copy after the next Open.
func TestCrashDuringDefragment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "db"), testOptions())
	applyEntries(t, s, 1, 300)
	crashed := map[string]string{} // step to directory
	s.onStep = func(step string) {
		if crashed[step] != "" {
			return
		}
		crashed[step] = t.TempDir()
		names, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(dir, name.Name()))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(crashed[step], name.Name()), data, 0o600))
		}
	}
	require.NoError(t, s.Defragment(t.Context()))
	require.Len(t, crashed, 6)
	for step, at := range crashed {
		_, err := os.Stat(filepath.Join(at, "db"+copySuffix))
		require.Equal(t, step == "renamed", os.IsNotExist(err), step)
		after := open(t, filepath.Join(at, "db"), testOptions())
		require.NoFileExists(t, after.path+copySuffix)
		requirePrefix(t, after, 300)
		require.NoError(t, after.Close(t.Context()))
	}
}

// A snapshot that is installed while the file is copied stays, and is defragmented in its turn.
func TestInstallDuringDefragment(t *testing.T) {
	dir := t.TempDir()
	source := open(t, filepath.Join(dir, "source"), testOptions())
	applyEntries(t, source, 1, 500)
	path, _ := imageFile(t, source)
	for _, at := range []string{"chunk", "round", "rows"} {
		received := filepath.Join(dir, "received-"+at)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(received, data, 0o600))
		s := open(t, filepath.Join(dir, "db-"+at), testOptions())
		applyEntries(t, s, 1, 100)
		installed := false
		s.onStep = func(step string) {
			if step == at && !installed {
				installed = true
				require.NoError(t, s.Install(received))
			}
		}
		require.NoError(t, s.Defragment(t.Context()))
		require.True(t, installed)
		requirePrefix(t, s, 500)
		applyEntries(t, s, 501, 510)
		require.NoError(t, s.Close(t.Context()))
		s = open(t, s.path, testOptions())
		requirePrefix(t, s, 510)
	}
}

// One that is given up leaves all as it was.
func TestDefragmentGivenUp(t *testing.T) {
	for _, at := range []string{"chunk", "round", "rows"} {
		s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
		applyEntries(t, s, 1, 100)
		generation := s.Generation()
		ctx, cancel := context.WithCancel(t.Context())
		s.onStep = func(step string) {
			if step == at {
				cancel()
			}
		}
		require.ErrorIs(t, s.Defragment(ctx), context.Canceled, at)
		require.NoFileExists(t, s.path+copySuffix)
		require.Equal(t, generation, s.Generation())
		require.False(t, s.Defragmenting())
		require.Nil(t, s.notes)
		s.onStep = nil
		applyEntries(t, s, 101, 110)
		requirePrefix(t, s, 110)
		require.NoError(t, s.Defragment(t.Context()))
		requirePrefix(t, s, 110)
	}
}

// Close ends a copy on its way and waits for its end.
func TestCloseDuringDefragment(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	applyEntries(t, s, 1, 100)
	reached, goOn := make(chan struct{}), make(chan struct{})
	pause := sync.OnceFunc(func() { close(reached); <-goOn })
	s.onStep = func(string) { pause() }
	ended := make(chan error, 1)
	go func() { ended <- s.Defragment(context.Background()) }()
	<-reached
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Close(short), context.DeadlineExceeded)
	close(goOn)
	require.ErrorIs(t, <-ended, ErrClosed)
	require.NoError(t, s.Close(t.Context()))
	require.NoFileExists(t, s.path+copySuffix)
	require.ErrorIs(t, s.Defragment(t.Context()), ErrClosed)
	s = open(t, s.path, testOptions())
	requirePrefix(t, s, 100)
}

// What was dropped and not committed yet leaves no holes in the new file.
func TestDefragmentCommitsFirst(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	big := Batch{Index: 1, Term: 1}
	for main := int64(2); main < 100; main++ {
		big.Writes = append(big.Writes, putAt(rev(main, 0), "k", strings.Repeat("x", 10_000)))
	}
	require.NoError(t, s.Apply(big))
	require.NoError(t, s.Flush(t.Context()))
	drops := Batch{Index: 1, Term: 1}
	for main := int64(2); main < 99; main++ {
		drops.Drop = append(drops.Drop, mvcc.Drop{Rev: rev(main, 0)})
	}
	require.NoError(t, s.Apply(drops))
	require.NoError(t, s.Defragment(t.Context()))
	require.Less(t, s.Size(), int64(200_000))
}

// Open removes what a crash left, and only after it holds the database.
func TestOpenRemovesACopyLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	applyEntries(t, s, 1, 10)
	require.NoError(t, os.WriteFile(path+copySuffix, []byte("half a copy"), 0o600))
	_, err := Open(path, testOptions())
	require.ErrorIs(t, err, ErrInUse)
	require.FileExists(t, path+copySuffix, "it may be the other process's")
	require.NoError(t, s.Close(t.Context()))
	s = open(t, path, testOptions())
	require.NoFileExists(t, path+copySuffix)
	requirePrefix(t, s, 10)
}

// The hash tells states apart and does not depend on how a state came about or on the log's numbers.
func TestHash(t *testing.T) {
	hash := func(indices ...uint64) uint32 {
		s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
		for i, index := range indices {
			require.NoError(t, s.Apply(Batch{Index: index, Term: index, Rows: []Row{
				{Bucket: BucketLease, Key: fmt.Appendf(nil, "%d", i), Value: []byte("v")},
			}}))
		}
		sum, err := s.Hash(t.Context())
		require.NoError(t, err)
		return sum
	}
	require.Equal(t, hash(1, 2), hash(7, 9))
	require.NotEqual(t, hash(1, 2), hash(1, 2, 3))
}

// While entries come the copy rests after each chunk, for a multiple of what the chunk took; otherwise it does not.
func TestDefragmentMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{applied: 7}
		w := &chunkWriter{d: &defragmentation{store: s, ctx: t.Context()}}
		rested := func(took time.Duration) time.Duration {
			began := time.Now()
			require.NoError(t, w.rest(took))
			return time.Since(began)
		}
		require.Equal(t, chunkRests*time.Millisecond, rested(time.Millisecond))
		require.Zero(t, rested(time.Millisecond))
		s.applied++
		require.Equal(t, chunkRests*time.Millisecond, rested(time.Millisecond))
		s.applied++
		require.Equal(t, chunkRestMax, rested(time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w.d.ctx = ctx
		require.ErrorIs(t, w.rest(time.Hour), context.Canceled)
	})
}
