package store

import "syscall"

// forgetPages gives back the memory of the pages that were read: they stay in the kernel's cache, but count no longer as the process's.
// A start reads all of them once; the next read of a page maps it again.
func (f *file) forgetPages() {
	info := f.db.Info()
	if info.Data == 0 {
		return
	}
	// It is advice: where it fails all is as before.
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, info.Data, uintptr(f.mapBytes), syscall.MADV_DONTNEED)
}
