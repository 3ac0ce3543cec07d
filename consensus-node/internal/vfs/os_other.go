//go:build unix && !linux

package vfs

import "os"

func preallocate(f *os.File, have, size int64) error { return writeZeros(f, have, size) }

// datasync is the full sync: os.File.Sync asks the drive to empty its cache too where fsync alone does not (F_FULLFSYNC).
func datasync(f *os.File) error { return f.Sync() }
