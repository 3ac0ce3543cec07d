package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// hold keeps the committer from finishing: bbolt has one writer at a time.
func hold(t *testing.T, s *Store) (release func()) {
	t.Helper()
	tx, err := s.file.db.Begin(true)
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback()) }
}

func TestApplyBlocksAtTheByteBound(t *testing.T) {
	opts := testOptions()
	opts.MaxPendingBytes = 10_000
	s := open(t, filepath.Join(t.TempDir(), "db"), opts)
	release := hold(t, s)
	batch := func(i uint64) Batch {
		return Batch{Index: i, Term: 1, Writes: []mvcc.Write{putAt(rev(int64(i)+1, 0), "k", strings.Repeat("v", 6000))}}
	}
	require.NoError(t, s.Apply(batch(1)))
	require.Less(t, s.Pressure(), 1.0)
	require.NoError(t, s.Apply(batch(2))) // may exceed the bound
	require.GreaterOrEqual(t, s.Pressure(), 1.0)

	blocked := make(chan error, 1)
	go func() { blocked <- s.Apply(batch(3)) }()
	select {
	case err := <-blocked:
		t.Fatalf("Apply did not wait: %v", err)
	case <-time.After(30 * time.Millisecond): // it has had its chance
	}
	r := reader(t, s) // readers do not wait with it
	require.Equal(t, uint64(2), r.Index())
	r.Close()
	release()
	require.NoError(t, <-blocked)
	require.Equal(t, uint64(2), s.Durable())
	require.NoError(t, s.Flush(t.Context()))
	require.Zero(t, s.Pressure())
}

func TestCommitsByIntervalOpsAndBytes(t *testing.T) {
	one := func(i uint64, size int) Batch {
		return Batch{Index: i, Term: 1, Writes: []mvcc.Write{putAt(rev(int64(i)+1, 0), "k", strings.Repeat("v", size))}}
	}
	t.Run("interval", func(t *testing.T) {
		opts := testOptions()
		opts.CommitInterval = 5 * time.Millisecond
		s := open(t, filepath.Join(t.TempDir(), "db"), opts)
		require.NoError(t, s.Apply(one(1, 1)))
		waitDurable(t, s, 1)
	})
	t.Run("operations", func(t *testing.T) {
		opts := testOptions()
		opts.CommitOps = 3
		s := open(t, filepath.Join(t.TempDir(), "db"), opts)
		for i := range uint64(3) {
			require.Zero(t, s.Durable())
			require.NoError(t, s.Apply(one(i+1, 1)))
		}
		waitDurable(t, s, 3)
	})
	t.Run("bytes", func(t *testing.T) {
		opts := testOptions()
		opts.CommitBytes = 1000
		s := open(t, filepath.Join(t.TempDir(), "db"), opts)
		require.NoError(t, s.Apply(one(1, 1)))
		require.Zero(t, s.Durable())
		require.NoError(t, s.Apply(one(2, 1000)))
		waitDurable(t, s, 2)
	})
}

// Stores that take the same changes at the same time commit them one after the other, as far apart as can be.
func TestCommitsInTurns(t *testing.T) {
	const stores, interval = 3, 300 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		began := make([]chan time.Time, stores)
		for i := range began {
			opts := testOptions()
			opts.CommitInterval = interval
			s := open(t, filepath.Join(t.TempDir(), "db"), opts)
			s.SetTurn(i, stores)
			began[i] = make(chan time.Time, 2)
			s.opts.OnDurable = func(uint64) { began[i] <- time.Now() }
			defer func() { require.NoError(t, s.Close(t.Context())) }()
			for index := range uint64(2) {
				require.NoError(t, s.Apply(Batch{Index: index + 1, Term: 1}))
				synctest.Wait()
				at := <-began[i]
				require.Zero(t, at.Add(-time.Duration(i)*interval/stores).UnixNano()%int64(interval), "store %d at %s", i, at)
			}
		}
	})
}

func TestTurns(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	s.opts.CommitInterval = time.Second
	for _, of := range []int{1, 3, 5, 1000} {
		seen := map[time.Duration]bool{}
		for number := range of {
			s.SetTurn(number, of)
			require.GreaterOrEqual(t, s.Turn(), time.Duration(0))
			require.Less(t, s.Turn(), time.Second)
			seen[s.Turn()] = true
			for _, ns := range []int64{0, 1, 999_999_999, 1_000_000_000, 1_796_000_000_123_456_789} {
				wait := s.slot(time.Unix(0, ns)).Sub(time.Unix(0, ns))
				require.Greater(t, wait, time.Duration(0))
				require.LessOrEqual(t, wait, time.Second, "a change waits an interval at most")
			}
		}
		require.Len(t, seen, of)
	}
}

func TestFailedCommitEndsTheStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	opts := testOptions()
	opts.MapBytes = 1 << 20
	failures := make(chan error, 2)
	opts.OnFailure = func(err error) { failures <- err }
	s := open(t, path, opts)
	require.NoError(t, s.Apply(Batch{Index: 1, Term: 1, Writes: []mvcc.Write{putAt(rev(2, 0), "k", "small")}}))
	require.NoError(t, s.Flush(t.Context()))
	require.NoError(t, s.Apply(Batch{
		Index: 2, Term: 1, Writes: []mvcc.Write{putAt(rev(3, 0), "k", strings.Repeat("too large", 200_000))},
	}))
	err := s.Flush(t.Context())
	require.ErrorContains(t, err, "outgrown its memory map")
	require.Equal(t, err, <-failures)

	// It is over, and says so each time.
	require.Equal(t, err, s.Apply(Batch{Index: 3, Term: 1}))
	require.Equal(t, err, s.Flush(t.Context()))
	_, imageErr := s.Image(t.Context())
	require.ErrorIs(t, imageErr, err)
	require.Equal(t, uint64(1), s.Durable())
	_, valueErr := reader(t, s).Value(rev(3, 0))
	require.NoError(t, valueErr, "what was applied can be read until the process ends")
	require.Empty(t, failures, "OnFailure is called once")
}

func TestAfterFailureTheFileHoldsThePrefix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	opts := testOptions()
	opts.MapBytes = 1 << 20
	s := open(t, path, opts)
	for i := uint64(1); i < 5000; i++ {
		if err := s.Apply(crashEntry(i)); err != nil {
			break
		}
		if i%50 == 0 && s.Flush(t.Context()) != nil {
			break
		}
	}
	durable := s.Durable()
	require.Error(t, s.Close(t.Context()))
	require.Positive(t, durable)
	require.Less(t, durable, uint64(4999))
	s = open(t, path, opts) // whose map is too small for more; Open makes it larger
	require.Equal(t, durable, s.Durable())
	requirePrefix(t, s, durable)
	for i := durable + 1; i <= durable+200; i++ {
		require.NoError(t, s.Apply(crashEntry(i)))
	}
	require.NoError(t, s.Flush(t.Context()))
	requirePrefix(t, s, durable+200)
}

func TestApplyRefuses(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	require.NoError(t, s.Apply(Batch{Index: 5, Term: 1, Writes: []mvcc.Write{putAt(rev(4, 0), "k", "v")}}))
	tests := map[string]Batch{
		"an older index":         {Index: 4},
		"the index again":        {Index: 5, Writes: []mvcc.Write{putAt(rev(5, 0), "k", "v")}},
		"an older revision":      {Index: 6, Writes: []mvcc.Write{putAt(rev(3, 9), "k", "v")}},
		"no key-value":           {Index: 6, Writes: []mvcc.Write{{Rev: rev(5, 0)}}},
		"a revision twice":       {Index: 6, Writes: []mvcc.Write{putAt(rev(5, 0), "k", "v"), putAt(rev(5, 0), "l", "v")}},
		"too little encoded":     {Index: 6, Writes: []mvcc.Write{putAt(rev(5, 0), "k", "v")}, Encoded: [][]byte{}},
		"the index as a row":     {Index: 6, Rows: []Row{{Bucket: BucketMeta, Key: []byte("consistent_index")}}},
		"the revision bucket":    {Index: 6, Rows: []Row{{Bucket: BucketKey, Key: []byte("x")}}},
		"the mark":               {Index: 6, Rows: []Row{{Bucket: "holdfast_meta", Key: []byte("format")}}},
		"an unknown bucket":      {Index: 6, Rows: []Row{{Bucket: "other", Key: []byte("x")}}},
		"an empty key":           {Index: 6, Rows: []Row{{Bucket: BucketLease}}},
		"a key that is too long": {Index: 6, Rows: []Row{{Bucket: BucketLease, Key: make([]byte, 40_000), Delete: true}}},
	}
	for name, b := range tests {
		require.ErrorIs(t, s.Apply(b), ErrBatch, name)
	}
	r := reader(t, s)
	require.Equal(t, uint64(5), r.Index())
	require.Len(t, content(t, r), 1)
	require.NoError(t, s.Apply(Batch{Index: 5, Drop: []mvcc.Drop{{Rev: rev(4, 0)}}}), "drops may repeat the index")
	require.Len(t, content(t, r), 1)
	require.Empty(t, content(t, reader(t, s)))
}

func TestCloseCommitsAndEndsAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	require.NoError(t, s.Apply(crashEntry(1)))
	r := reader(t, s)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Close(canceled), context.Canceled)
	require.ErrorIs(t, s.Apply(crashEntry(2)), ErrClosed)
	require.Len(t, content(t, r), 2, "an open reader outlives the close")
	r.Close()
	require.NoError(t, s.Close(t.Context()))
	_, err := s.Reader()
	require.ErrorIs(t, err, ErrClosed)
	_, err = r.Value(rev(2, 0))
	require.ErrorIs(t, err, ErrClosed)
	requirePrefix(t, open(t, path, testOptions()), 1)
}

func TestSizes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	var drops []mvcc.Drop
	for i := uint64(1); i <= 100; i++ {
		w := putAt(rev(int64(i)+1, 0), "k", strings.Repeat("v", 4000))
		require.NoError(t, s.Apply(Batch{Index: i, Term: 1, Writes: []mvcc.Write{w}}))
		drops = append(drops, mvcc.Drop{Rev: w.Rev})
	}
	require.NoError(t, s.Flush(t.Context()))
	full := s.SizeInUse()
	require.Greater(t, full, int64(400_000))
	require.GreaterOrEqual(t, s.Size(), full)
	require.NoError(t, s.Apply(Batch{Index: 100, Drop: drops}))
	require.NoError(t, s.Flush(t.Context()))
	require.GreaterOrEqual(t, s.Size(), full)
	require.Less(t, s.SizeInUse(), full/2)
	require.NoError(t, s.Close(t.Context()))
	s = open(t, path, testOptions())
	require.Less(t, s.SizeInUse(), full/2)
}

func TestValuesOutliveReaderAndFile(t *testing.T) {
	value := strings.Repeat("v", 10_000) // too large for bbolt to keep it in the root page
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	require.NoError(t, s.Apply(Batch{Index: 1, Term: 1, Writes: []mvcc.Write{putAt(rev(2, 0), "key", value)}}))
	require.NoError(t, s.Flush(t.Context()))
	r := reader(t, s)
	kv, err := r.Value(rev(2, 0))
	require.NoError(t, err)
	var scanned *mvccpb.KeyValue
	require.NoError(t, r.Scan(rev(0, 0), rev(9, 0), func(_ mvcc.Revision, _ bool, kv *mvccpb.KeyValue) error {
		scanned = kv
		return nil
	}))
	r.Close()
	require.NoError(t, s.Close(t.Context())) // the memory map is gone
	require.Equal(t, "key="+value, string(kv.Key)+"="+string(kv.Value))
	require.Equal(t, "key="+value, string(scanned.Key)+"="+string(scanned.Value))
}

// Rows of one commit are done in their order, whatever pages they empty and whether the deleted ones are there.
func TestRowsOfOneCommit(t *testing.T) {
	const keys = 5000 // some fifty pages
	random := rand.New(rand.NewPCG(1, 2))
	s := open(t, filepath.Join(t.TempDir(), "db"), testOptions())
	want := map[string]string{}
	commit := func(index uint64, rows []Row) {
		for _, r := range rows {
			if r.Delete {
				delete(want, string(r.Key))
			} else if r.Bucket == BucketLease {
				want[string(r.Key)] = string(r.Value)
			}
		}
		require.NoError(t, s.Apply(Batch{Index: index, Term: 1, Rows: rows}))
		require.NoError(t, s.Flush(t.Context()))
		got := map[string]string{}
		require.NoError(t, s.ForEach(BucketLease, func(key, value []byte) error {
			got[string(key)] = string(value)
			return nil
		}))
		require.True(t, maps.Equal(want, got), "commit %d: %d rows, and not %d", index, len(got), len(want))
	}
	row := func(id int, remove bool) Row {
		return Row{Bucket: BucketLease, Key: binary.BigEndian.AppendUint64(nil, uint64(id)), Value: fmt.Appendf(nil, "%030d", random.IntN(100)), Delete: remove}
	}
	var rows []Row
	for id := range keys {
		rows = append(rows, row(2*id, false))
	}
	commit(1, rows)
	rows = nil
	for id := keys / 2; id < keys+keys/2; id++ { // whole pages, and between them ids that are not there
		rows = append(rows, row(id, true))
		if id%97 == 0 {
			rows = append(rows, Row{Bucket: BucketAlarm, Key: []byte{1}}, row(id-5, false), row(id-5, true), row(id-7, false))
		}
	}
	commit(2, rows)
	for index := uint64(3); index < 8; index++ {
		rows = nil
		for range keys {
			rows = append(rows, row(random.IntN(2*keys), random.IntN(3) > 0))
		}
		commit(index, rows)
	}
}
