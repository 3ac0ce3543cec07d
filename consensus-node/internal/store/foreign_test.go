package store

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
)

// A row that cannot be read when the import is committed ends it with an error: the transaction under way holds up nobody.
func TestImportOfARowThatFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "source")
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte(BucketKey))
		require.NoError(t, err)
		return b.Put([]byte("k"), []byte("v"))
	}))
	require.NoError(t, db.Close())
	f, err := OpenForeign(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	gone, err := syscall.Mmap(-1, 0, 4096, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Munmap(gone)) }()
	err = f.Import(filepath.Join(t.TempDir(), "db"), Import{
		Row: func(string, []byte, []byte) ([]byte, bool, error) { return gone, true, nil },
		End: func() []Row { return nil }, ConfState: &raftpb.ConfState{},
	})
	require.ErrorIs(t, err, ErrUnreadable)
}
