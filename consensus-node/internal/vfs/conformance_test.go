package vfs_test

import (
	"io"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
)

// TestConformance runs one suite over the machine's file system and the one for tests, so that what holds on the second holds on
// the first.
func TestConformance(t *testing.T) {
	systems := map[string]func(t *testing.T) (vfs.FS, string){
		"os":      func(t *testing.T) (vfs.FS, string) { t.Helper(); return vfs.OS{}, t.TempDir() },
		"faultfs": func(*testing.T) (vfs.FS, string) { return faultfs.New(1), "/tmp" },
	}
	cases := map[string]func(t *testing.T, fsys vfs.FS, dir string){
		"names": names, "content": content, "sizes": sizes, "open files outlive names": unlinked, "locks": locks,
	}
	for system, start := range systems {
		for name, run := range cases {
			t.Run(system+"/"+name, func(t *testing.T) {
				fsys, base := start(t)
				dir := filepath.Join(base, "a", "b")
				require.NoError(t, fsys.MkdirAll(dir))
				require.NoError(t, fsys.MkdirAll(dir), "again")
				run(t, fsys, dir)
			})
		}
	}
}

func create(t *testing.T, fsys vfs.FS, name, data string) vfs.File {
	t.Helper()
	f, err := fsys.Create(name)
	require.NoError(t, err)
	if data != "" {
		_, err = f.WriteAt([]byte(data), 0)
		require.NoError(t, err)
	}
	return f
}

func read(t *testing.T, f vfs.File) string {
	t.Helper()
	size, err := f.Size()
	require.NoError(t, err)
	b := make([]byte, size+1)
	n, err := f.ReadAt(b, 0)
	require.ErrorIs(t, err, io.EOF, "a short read says why")
	require.EqualValues(t, size, n)
	return string(b[:n])
}

func names(t *testing.T, fsys vfs.FS, dir string) {
	_, err := fsys.Open(filepath.Join(dir, "x"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = fsys.List(filepath.Join(dir, "none"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorIs(t, fsys.Remove(filepath.Join(dir, "x")), fs.ErrNotExist)
	require.ErrorIs(t, fsys.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "y")), fs.ErrNotExist)

	for _, name := range []string{"b", "a", "c"} {
		require.NoError(t, create(t, fsys, filepath.Join(dir, name), name).Close())
	}
	_, err = fsys.Create(filepath.Join(dir, "a"))
	require.ErrorIs(t, err, fs.ErrExist)
	require.NoError(t, fsys.Rename(filepath.Join(dir, "c"), filepath.Join(dir, "a")), "over another file")
	require.NoError(t, fsys.SyncDir(dir))
	list, err := fsys.List(dir)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, list)
	f, err := fsys.OpenReadOnly(filepath.Join(dir, "a"))
	require.NoError(t, err)
	require.Equal(t, "c", read(t, f))
	require.NoError(t, f.Close())
}

func content(t *testing.T, fsys vfs.FS, dir string) {
	name := filepath.Join(dir, "f")
	f := create(t, fsys, name, "hello")
	_, err := f.WriteAt([]byte("J"), 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("end"), 8)
	require.NoError(t, err)
	require.NoError(t, f.Datasync())
	require.NoError(t, f.Sync())
	require.NoError(t, f.Close())
	require.ErrorIs(t, f.Close(), fs.ErrClosed)
	_, err = f.WriteAt([]byte("x"), 0)
	require.ErrorIs(t, err, fs.ErrClosed)

	f, err = fsys.OpenReadOnly(name)
	require.NoError(t, err)
	require.Equal(t, "Jello\x00\x00\x00end", read(t, f))
	_, err = f.WriteAt([]byte("x"), 0)
	require.Error(t, err, "a read-only file")
	require.NoError(t, f.Close())
}

func sizes(t *testing.T, fsys vfs.FS, dir string) {
	f := create(t, fsys, filepath.Join(dir, "f"), "hello")
	require.NoError(t, f.Preallocate(3), "never shortens")
	require.Equal(t, "hello", read(t, f))
	require.NoError(t, f.Preallocate(7))
	require.Equal(t, "hello\x00\x00", read(t, f))
	require.NoError(t, f.Truncate(2))
	require.NoError(t, f.Truncate(4))
	require.Equal(t, "he\x00\x00", read(t, f), "what was cut does not come back")
	_, err := f.ReadAt(make([]byte, 1), 4)
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, f.Close())
}

func unlinked(t *testing.T, fsys vfs.FS, dir string) {
	name := filepath.Join(dir, "f")
	f := create(t, fsys, name, "one")
	require.NoError(t, fsys.Remove(name))
	other := create(t, fsys, name, "two")
	require.Equal(t, "one", read(t, f))
	require.Equal(t, "two", read(t, other))
	require.NoError(t, f.Close())
	require.NoError(t, other.Close())
}

func locks(t *testing.T, fsys vfs.FS, dir string) {
	name := filepath.Join(dir, "LOCK")
	lock, err := fsys.Lock(name)
	require.NoError(t, err)
	_, err = fsys.Lock(name)
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, lock.Close())
	lock, err = fsys.Lock(name)
	require.NoError(t, err)
	require.NoError(t, lock.Close())
}
