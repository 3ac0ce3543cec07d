// Package faultfs is a file system in memory that fails the way disks do. It is for tests.
//
// It keeps apart what processes see (the page cache) and what a power cut leaves (the disk). A write reaches the disk at a
// successful Datasync or Sync; at a power cut each write since then is, independently, kept, lost or torn at 512-byte
// sectors, and each change of a name since the last SyncDir kept or lost, all drawn from the seed. A failed Sync drops the
// dirty pages: they stay visible, a later Sync succeeds, and they are gone after a power cut, as on Linux.
//
// Directories are always durable: MkdirAll syncs. The zero [Fault] means no fault.
package faultfs

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

var (
	// ErrPowerCut is what every call returns from the power cut to Restart, and what handles from before it return for ever.
	ErrPowerCut = errors.New("faultfs: power is cut")
	// ErrFault is a ready-made error for injected faults.
	ErrFault = errors.New("faultfs: injected fault")
)

// Kind names a call that changes something.
type Kind string

// The calls that a fault can meet and that the countdown to a power cut counts.
const (
	KindCreate      Kind = "create"
	KindWrite       Kind = "write"
	KindTruncate    Kind = "truncate"
	KindPreallocate Kind = "preallocate"
	KindSync        Kind = "sync"
	KindRename      Kind = "rename"
	KindRemove      Kind = "remove"
	KindSyncDir     Kind = "syncdir"
)

// Op describes one call to the fault function. Size is the length of a write or the new length of the file.
type Op struct {
	Kind      Kind
	Name      string
	Off, Size int64
}

// Fault says how a call fails. Short is how much of a write still happens.
type Fault struct {
	Err   error
	Short int64
}

// FS is the file system. Make it with [New].
type FS struct {
	mu       sync.Mutex
	rng      *rand.Rand
	dirs     map[string]bool
	names    map[string]*inode // as processes see them
	disk     map[string]*inode // as a power cut leaves them
	moves    []move            // between the two
	locks    map[string]*lock
	epoch    int // handles of an earlier one are dead
	off      bool
	left     int // calls until the power cut; negative: none comes
	ops      int
	capacity int64
	fault    func(Op) Fault
	fork     func(*FS) // nil: no copy is due
	forkLeft int       // calls until it is
	forkSeed uint64
}

var _ vfs.FS = (*FS)(nil)

// New returns an empty file system whose chance comes from seed alone.
func New(seed uint64) *FS {
	return &FS{
		rng: rand.New(rand.NewPCG(seed, 0x66617573)), dirs: map[string]bool{}, names: map[string]*inode{},
		disk: map[string]*inode{}, locks: map[string]*lock{}, left: -1, capacity: -1,
	}
}

// SetFault installs the function that is asked before each call; nil takes it away. It runs under the file system's lock.
func (f *FS) SetFault(fault func(Op) Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// SetCapacity bounds the sum of the files' lengths in bytes; past it calls fail with ENOSPC. Negative means no bound.
func (f *FS) SetCapacity(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = size
}

// Ops returns how many changing calls there have been: the range for CutAfter.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// CutAfter cuts the power in the middle of the changing call that follows n further ones.
func (f *FS) CutAfter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = n
}

// step counts a changing call and asks for its fault. The caller holds mu.
func (f *FS) step(op Op) (Fault, error) {
	if f.off {
		return Fault{}, ErrPowerCut
	}
	f.ops++
	f.forkIfDue()
	if f.left == 0 {
		f.off = true
		return Fault{Short: op.Size}, ErrPowerCut // a cut write may still be on its way
	}
	if f.left > 0 {
		f.left--
	}
	if f.fault != nil {
		if fault := f.fault(op); fault.Err != nil {
			return fault, fault.Err
		}
	}
	return Fault{}, nil
}

// room reports whether the files may grow by n bytes.
func (f *FS) room(n int64) error {
	if f.capacity < 0 || n <= 0 {
		return nil
	}
	for _, node := range f.names {
		n += int64(len(node.cache))
	}
	if n > f.capacity {
		return syscall.ENOSPC
	}
	return nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}
