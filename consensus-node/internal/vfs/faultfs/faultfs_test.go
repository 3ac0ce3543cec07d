package faultfs_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
)

const (
	dir  = "/d"
	name = "/d/f"
)

// start returns a file system with one durable file of n bytes "o".
func start(t *testing.T, seed uint64, n int) (*faultfs.FS, vfs.File) {
	t.Helper()
	fsys := faultfs.New(seed)
	require.NoError(t, fsys.MkdirAll(dir))
	f, err := fsys.Create(name)
	require.NoError(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("o"), n), 0)
	require.NoError(t, err)
	require.NoError(t, f.Sync())
	require.NoError(t, fsys.SyncDir(dir))
	return fsys, f
}

// TestPowerCutOutcomes sees, over some seeds, each fate of a write: kept, lost, torn; and never one of a synced write.
func TestPowerCutOutcomes(t *testing.T) {
	kept, lost, torn := 0, 0, 0
	for seed := range uint64(100) {
		fsys, f := start(t, seed, 4096)
		_, err := f.WriteAt(bytes.Repeat([]byte("s"), 1024), 0)
		require.NoError(t, err)
		require.NoError(t, f.Datasync())
		_, err = f.WriteAt(bytes.Repeat([]byte("n"), 3072), 1024)
		require.NoError(t, err)
		fsys.Restart()
		_, err = f.ReadAt(make([]byte, 1), 0)
		require.ErrorIs(t, err, faultfs.ErrPowerCut, "handles from before are dead")

		got := fsys.Content(name)
		require.Len(t, got, 4096)
		require.Equal(t, 1024, bytes.Count(got, []byte("s")), "synced")
		switch n := bytes.Count(got, []byte("n")); n {
		case 3072:
			kept++
		case 0:
			lost++
		default:
			torn++
			require.Zero(t, n%512, "sectors are whole")
		}
	}
	require.Positive(t, kept)
	require.Positive(t, lost)
	require.Positive(t, torn)
}

// TestNamesAtPowerCut: an unsynced name may or may not be there, a synced one is.
func TestNamesAtPowerCut(t *testing.T) {
	there := 0
	for seed := range uint64(40) {
		fsys, _ := start(t, seed, 1)
		require.NoError(t, fsys.Rename(name, "/d/g"))
		fsys.Restart()
		f, g := fsys.Content(name) != nil, fsys.Content("/d/g") != nil
		require.NotEqual(t, f, g, "a rename is one step")
		if g {
			there++
		}
	}
	require.Positive(t, there)
	require.Less(t, there, 40)
}

// TestSameSeedSameOutcome: a failure can be run again.
func TestSameSeedSameOutcome(t *testing.T) {
	run := func() []byte {
		fsys, f := start(t, 7, 100)
		for i := range int64(20) {
			_, err := f.WriteAt(bytes.Repeat([]byte{byte(i)}, 600), i*500)
			require.NoError(t, err)
		}
		fsys.Restart()
		return fsys.Content(name)
	}
	first, again := run(), run()
	require.Equal(t, first, again)
}

// TestFailedSync keeps the pages visible, lets the next sync succeed, and loses them at the power cut.
func TestFailedSync(t *testing.T) {
	fsys, f := start(t, 1, 4)
	_, err := f.WriteAt([]byte("new!"), 0)
	require.NoError(t, err)
	fsys.SetFault(func(op faultfs.Op) faultfs.Fault {
		if op.Kind == faultfs.KindSync {
			return faultfs.Fault{Err: syscall.EIO}
		}
		return faultfs.Fault{}
	})
	require.ErrorIs(t, f.Datasync(), syscall.EIO)
	fsys.SetFault(nil)
	require.NoError(t, f.Datasync())
	fsys.Kill()
	require.Equal(t, "new!", string(fsys.Content(name)), "the page cache outlives the process")
	fsys.Restart()
	require.Equal(t, "oooo", string(fsys.Content(name)))
}

// TestShortWriteFullDiskAndFlip are the rest of the faults.
func TestShortWriteFullDiskAndFlip(t *testing.T) {
	fsys, f := start(t, 1, 4)
	fsys.SetFault(func(op faultfs.Op) faultfs.Fault { return faultfs.Fault{Err: faultfs.ErrFault, Short: op.Size / 2} })
	n, err := f.WriteAt([]byte("abcd"), 0)
	require.ErrorIs(t, err, faultfs.ErrFault)
	require.Equal(t, 2, n)
	require.Equal(t, "aboo", string(fsys.Content(name)))
	fsys.SetFault(nil)

	fsys.SetCapacity(6)
	require.ErrorIs(t, f.Preallocate(7), syscall.ENOSPC)
	_, err = f.WriteAt([]byte("xyz"), 4)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Preallocate(6))
	_, err = f.WriteAt([]byte("zz"), 4)
	require.NoError(t, err, "inside what is there")

	require.NoError(t, fsys.Flip(name, 0, 0))
	require.Equal(t, "`boozz", string(fsys.Content(name)))
	require.Error(t, fsys.Flip(name, 6, 0))
}

// TestCutAfter cuts in the middle of the chosen call.
func TestCutAfter(t *testing.T) {
	fsys, f := start(t, 1, 4)
	fsys.CutAfter(1)
	_, err := f.WriteAt([]byte("ab"), 0)
	require.NoError(t, err)
	require.ErrorIs(t, f.Datasync(), faultfs.ErrPowerCut)
	_, err = fsys.Open(name)
	require.ErrorIs(t, err, faultfs.ErrPowerCut, "until the restart")
	fsys.Restart()
	f, err = fsys.Open(name)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

// A copy is of the moment before a call, and what happens to one file system does not happen to the other.
func TestForkAt(t *testing.T) {
	f := faultfs.New(1)
	require.NoError(t, f.MkdirAll("/d"))
	file, err := f.Create("/d/a")
	require.NoError(t, err)
	write := func(f vfs.File, text string, off int64) {
		_, err := f.WriteAt([]byte(text), off)
		require.NoError(t, err)
	}
	write(file, "durable", 0)
	require.NoError(t, file.Datasync())
	require.NoError(t, f.SyncDir("/d"))
	var forks []*faultfs.FS
	for _, n := range []int{1, 2} {
		f.ForkAt(n, 7, func(fork *faultfs.FS) { forks = append(forks, fork) })
		write(file, "DUR", 0)
		write(file, "X", 3)
		write(file, "dur", 0)
	}
	require.Equal(t, "DURable", string(forks[0].Content("/d/a")))
	require.Equal(t, "DURXble", string(forks[1].Content("/d/a")))
	require.Equal(t, "durXble", string(f.Content("/d/a")))
	require.NoError(t, file.Datasync())
	forks[0].Restart()
	require.NotEqual(t, byte('X'), forks[0].Content("/d/a")[3], "what came after the copy is not in it")
	copied, err := forks[1].Open("/d/a")
	require.NoError(t, err)
	write(copied, "copy", 0)
	require.Equal(t, "durXble", string(f.Content("/d/a")))
	now := f.Fork(1)
	now.Restart()
	require.Equal(t, "durXble", string(now.Content("/d/a")))
}
