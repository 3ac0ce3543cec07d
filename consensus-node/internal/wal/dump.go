package wal

import (
	"io"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// RecordKind names what a [Record] shows.
type RecordKind string

// The kinds of records, in the words that a dump prints.
const (
	RecordSegment   RecordKind = "segment"
	RecordBase      RecordKind = "base"
	RecordEntry     RecordKind = "entry"
	RecordHardState RecordKind = "hard-state"
	RecordMark      RecordKind = "snapshot-mark"
	RecordConfirm   RecordKind = "confirm"
	RecordSeal      RecordKind = "seal"
	RecordEnd       RecordKind = "end"
)

// Record is one piece of the log as it lies on the disk. Of the pointers only the one of its kind is set; the callee may keep it.
type Record struct {
	File   string
	Offset int64 // in the file, bytes
	Kind   RecordKind
	// Durable is the offset that the record's group claims as durable.
	Durable int64

	Metadata  Metadata // of a segment
	Entry     *raftpb.Entry
	HardState *raftpb.HardState
	Mark      SnapshotMark
	Reset     bool // the mark voids all entries before it
}

// LockStopped takes the lock of a log that nobody has open, so that nobody opens it until Close. Errors: one that is fs.ErrNotExist without
// a log, vfs.ErrLocked if a process has it.
func LockStopped(fsys vfs.FS, dir string) (io.Closer, error) {
	if !Exists(fsys, dir) {
		return nil, errNoLog(dir) // before Lock, which makes a file
	}
	return fsys.Lock(filepath.Join(dir, lockName))
}

// Dump calls fn for everything in the log in the order it was written: entries that were replaced or are covered by a snapshot
// too. The last record is of kind end. It changes nothing and takes no lock; on a log in use it shows what had been written
// when it read each file, and may fail with fs.ErrNotExist, or seem to lack its last segment, where one came or went meanwhile. A *DamageError comes after all that
// precedes the damage; an error of fn ends the dump and is returned.
func Dump(fsys vfs.FS, dir string, fn func(Record) error) error {
	s := scan{fs: fsys, dir: dir, visit: fn}
	if err := s.run(); err != nil {
		return err
	}
	return fn(Record{File: s.cur.path, Offset: s.cur.off, Kind: RecordEnd, Durable: s.claimed})
}
