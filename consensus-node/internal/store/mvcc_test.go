package store

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// kvHash is HashKV of what the Store holds now.
func kvHash(t *testing.T, s *Store, v *mvcc.View) mvcc.KVHash {
	t.Helper()
	r, err := s.Reader()
	require.NoError(t, err)
	defer r.Close()
	var stored error
	h, err := v.Hash(0, r.Stored(&stored))
	require.NoError(t, err)
	require.NoError(t, stored)
	return h
}

// The index and the Store together: hashes do not depend on what is committed
// or dropped already, and a restart finds the same state.
func TestWithTheIndex(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := open(t, path, testOptions())
	state := mvcc.New()
	var index uint64
	apply := func(b Batch) {
		t.Helper()
		index++
		b.Index, b.Term = index, 1
		require.NoError(t, s.Apply(b))
	}
	write := func(put *pb.PutRequest, del *pb.DeleteRangeRequest) {
		t.Helper()
		r, err := s.Reader()
		require.NoError(t, err)
		defer r.Close()
		var eff mvcc.Effects
		if put != nil {
			_, eff, err = state.Put(put, mvcc.Env{Values: r})
		} else {
			_, eff, err = state.DeleteRange(del, mvcc.Env{Values: r})
		}
		require.NoError(t, err)
		apply(Batch{Writes: eff.Writes})
	}
	for i := range 200 {
		key := []byte(fmt.Sprint("k", i%37))
		write(&pb.PutRequest{Key: key, Value: []byte(fmt.Sprint(i)), PrevKv: true}, nil)
		if i%11 == 0 {
			write(nil, &pb.DeleteRangeRequest{Key: key, PrevKv: true})
		}
		if i == 90 {
			require.NoError(t, s.Flush(t.Context()))
		}
	}
	require.NoError(t, state.Compact(150))
	apply(Batch{Rows: []Row{ScheduledCompact(150)}})
	want := kvHash(t, s, state.View())
	require.NotZero(t, want.Hash)
	for done := false; !done; {
		var drops []mvcc.Drop
		drops, done = state.CompactStep(20)
		require.NoError(t, s.Apply(Batch{Index: index, Drop: drops}))
		require.Equal(t, want, kvHash(t, s, state.View()))
	}
	require.NoError(t, s.Flush(t.Context()))
	require.Equal(t, want, kvHash(t, s, state.View()))
	require.NoError(t, s.Close(t.Context()))

	s = open(t, path, testOptions())
	meta, err := s.Meta()
	require.NoError(t, err)
	loader := mvcc.NewLoader(meta.CompactRevision())
	r := reader(t, s)
	require.NoError(t, r.Visit(loader.Add))
	restored := loader.State()
	require.False(t, restored.Compacting(), "all was dropped")
	require.Equal(t, state.Revision(), restored.Revision())
	require.Equal(t, want, kvHash(t, s, restored.View()))
	got, err := restored.View().Range(&pb.RangeRequest{Key: []byte("k5")}, r)
	require.NoError(t, err)
	require.Len(t, got.Kvs, 1)
}
