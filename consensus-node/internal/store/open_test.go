package store

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// writeBolt makes a database with plain bbolt.
func writeBolt(t *testing.T, path string, fill func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(fill))
	require.NoError(t, db.Close())
}

// filled makes a database of ours with some pages, and closes it.
func filled(t *testing.T, path string) {
	t.Helper()
	s := open(t, path, testOptions())
	for i := int64(1); i <= 50; i++ {
		require.NoError(t, s.Apply(Batch{
			Index: uint64(i), Term: 1,
			Writes: []mvcc.Write{putAt(rev(i+1, 0), "k", string(bytes.Repeat([]byte("v"), 4000)))},
		}))
	}
	require.NoError(t, s.Close(t.Context()))
}

func TestOpenRefuses(t *testing.T) {
	tests := map[string]struct {
		make func(t *testing.T, path string)
		want error
	}{
		"etcd's": {func(t *testing.T, path string) {
			writeBolt(t, path, func(tx *bbolt.Tx) error {
				_, err := tx.CreateBucket([]byte("key"))
				return err
			})
		}, ErrForeign},
		"a later format": {func(t *testing.T, path string) {
			filled(t, path)
			writeBolt(t, path, func(tx *bbolt.Tx) error {
				return tx.Bucket([]byte("holdfast_meta")).Put([]byte("format"), []byte("2"))
			})
		}, ErrFormat},
		"a bucket is gone": {func(t *testing.T, path string) {
			filled(t, path)
			writeBolt(t, path, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("members")) })
		}, ErrCorrupt},
		"cut short": {func(t *testing.T, path string) {
			filled(t, path)
			require.NoError(t, os.Truncate(path, 32<<10))
		}, ErrCorrupt},
		"empty": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}, ErrCorrupt},
		"no database": {func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("no!\n"), 20_000), 0o600))
		}, ErrCorrupt},
		"a directory": {func(t *testing.T, path string) {
			require.NoError(t, os.Mkdir(path, 0o700))
		}, fs.ErrInvalid},
		"in use": {func(t *testing.T, path string) { open(t, path, testOptions()) }, ErrInUse},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			test.make(t, path)
			before, _ := os.ReadFile(path)
			_, err := Open(path, testOptions())
			require.ErrorIs(t, err, test.want)
			require.ErrorContains(t, err, path)
			after, _ := os.ReadFile(path)
			require.True(t, bytes.Equal(before, after), "a refused file was written to")
		})
	}
}

func TestOpenWithoutDirectory(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none", "db"), testOptions())
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestOpenOverAnInterruptedCreation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	require.NoError(t, os.WriteFile(path+newSuffix, []byte("half"), 0o600))
	s := open(t, path, testOptions())
	require.NoError(t, s.Apply(Batch{Index: 1, Term: 1}))
	require.NoError(t, s.Close(t.Context()))
	names, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, names, 1)
}
