package robustness

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// diskBytes is room for what a member writes in a few minutes; both lay their logs out 64 MB ahead, twice, and a member of ours counts
// a disk with less than 128 MiB free as full.
const diskBytes = "512m"

// disk is a small file system that holds one member's data.
type disk struct {
	of, dir string // the member's name, and where it is mounted
}

// mountDisk mounts one. Without the right to, it says so and gives nil: the disk is then never full.
func mountDisk(t *testing.T, dir string) *disk {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o700))
	if err := unix.Mount("holdfast-test", dir, "tmpfs", 0, "mode=0700,size="+diskBytes); err != nil {
		leftOut(t, "the full disk. A tmpfs cannot be mounted here (%v): run as root", err)
		return nil
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return &disk{of: filepath.Base(dir), dir: dir}
}

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// fill takes all the room that is left, and gives it back one page at a time if nothing else is asked for.
func (d *disk) fill(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile(d.filler(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	defer f.Close()
	for _, chunk := range []int{1 << 20, 4 << 10} {
		for zeros := make([]byte, chunk); ; {
			if _, err := f.Write(zeros); err != nil {
				require.ErrorIs(t, err, syscall.ENOSPC, "%v", err)
				break
			}
		}
	}
}

// free gives the room back.
func (d *disk) free(t *testing.T) {
	t.Helper()
	require.NoError(t, os.Remove(d.filler()))
}
