package vfs

import (
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// preallocate asks the file system for the blocks and writes zeros only where it cannot (tmpfs of old kernels, some network
// file systems).
func preallocate(f *os.File, have, size int64) error {
	err := retryInterrupted(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return writeZeros(f, have, size)
	}
	return err
}

// datasync never retries but after EINTR, which the kernel gives before it has waited for a page.
func datasync(f *os.File) error {
	return retryInterrupted(func() error { return unix.Fdatasync(int(f.Fd())) })
}

// FreeBytes is how much a process without privileges may still write to the file system of dir.
func (OS) FreeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := retryInterrupted(func() error { return unix.Statfs(dir, &st) }); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(st.Bsize))) * st.Bsize, nil
}
