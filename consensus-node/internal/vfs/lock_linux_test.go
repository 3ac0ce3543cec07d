package vfs

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// A process that is being started has the parent's files open for a moment: that must not keep a lock that was given back.
func TestALockEndsThoughAnotherHasItsFileOpen(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	lock, err := (OS{}).Lock(name)
	require.NoError(t, err)
	inherited, err := unix.Dup(int(lock.(*fileLock).f.Fd()))
	require.NoError(t, err)
	defer func() { require.NoError(t, unix.Close(inherited)) }()
	_, err = (OS{}).Lock(name)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, lock.Close())
	again, err := (OS{}).Lock(name)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}
