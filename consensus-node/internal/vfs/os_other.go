//go:build unix && !linux

package vfs

import (
	"math"
	"os"
)

func preallocate(f *os.File, have, size int64) error { return writeZeros(f, have, size) }

// datasync is the full sync: os.File.Sync asks the drive to empty its cache too where fsync alone does not (F_FULLFSYNC).
func datasync(f *os.File) error { return f.Sync() }

// FreeBytes does not know, and tells of a disk without end.
func (OS) FreeBytes(string) (int64, error) { return math.MaxInt64, nil }
