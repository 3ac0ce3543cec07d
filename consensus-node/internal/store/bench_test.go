package store

import (
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

func benchOptions() Options { return Options{MapBytes: 8 << 30} }

// BenchmarkApply is an entry of one put with the committer behind it.
func BenchmarkApply(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "db"), benchOptions())
	value := strings.Repeat("v", 256)
	writes := make([]mvcc.Write, b.N)
	for i := range writes {
		writes[i] = putAt(rev(int64(i)+2, 0), "some/key", value)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := s.Apply(Batch{Index: uint64(i) + 1, Term: 1, Writes: writes[i : i+1]}); err != nil {
			b.Fatal(err)
		}
	}
}

const benchRevisions = 20_000

func benchStore(b *testing.B, flush bool) *Store {
	b.Helper()
	opts := benchOptions()
	if !flush {
		opts.CommitInterval, opts.CommitOps = testOptions().CommitInterval, 2*benchRevisions
	}
	s := open(b, filepath.Join(b.TempDir(), "db"), opts)
	for i := range uint64(benchRevisions) {
		w := putAt(rev(int64(i)+2, 0), "some/key", strings.Repeat("v", 256))
		if err := s.Apply(Batch{Index: i + 1, Term: 1, Writes: []mvcc.Write{w}}); err != nil {
			b.Fatal(err)
		}
	}
	if flush {
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func benchValue(b *testing.B, s *Store) {
	b.Helper()
	r := reader(b, s)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := r.Value(rev(int64(i*7919%benchRevisions)+2, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValueCommitted(b *testing.B) { benchValue(b, benchStore(b, true)) }
func BenchmarkValuePending(b *testing.B)   { benchValue(b, benchStore(b, false)) }

func BenchmarkReader(b *testing.B) {
	s := benchStore(b, true)
	b.ReportAllocs()
	for b.Loop() {
		r, err := s.Reader()
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkCommitRows is a commit of many rows of one bucket, as when many leases come and go.
func BenchmarkCommitRows(b *testing.B) {
	const rows = 5000
	opts := benchOptions()
	opts.CommitInterval, opts.CommitOps, opts.NoSync = never, 1<<30, true
	s := open(b, filepath.Join(b.TempDir(), "db"), opts)
	batch := Batch{Term: 1, Rows: make([]Row, rows)}
	for i := range batch.Rows {
		batch.Rows[i] = Row{Bucket: BucketLease, Key: binary.BigEndian.AppendUint64(nil, uint64(i)*0x9e3779b97f4a7c15), Value: make([]byte, 40)}
	}
	b.ReportAllocs()
	for b.Loop() {
		batch.Index++
		if err := s.Apply(batch); err != nil {
			b.Fatal(err)
		}
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
