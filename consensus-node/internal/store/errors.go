package store

import "errors"

// The errors that callers tell apart, wrapped with the path where there is one.
var (
	// ErrInUse: another process, or this one, has the file open.
	ErrInUse = errors.New("database is in use by another process")
	// ErrForeign: a database without Holdfast's mark, such as etcd writes it.
	// It becomes ours by restoring a snapshot of it into a new directory.
	ErrForeign = errors.New("database was not written by holdfast: " +
		"save a snapshot of it and run 'holdfast snapshot restore SNAPSHOT --data-dir NEW-DIRECTORY'")
	// ErrFormat: a database of a later Holdfast.
	ErrFormat = errors.New("database has a format that this version does not know")
	// ErrCorrupt: the file is shorter than it says, or is not as bbolt and we have written it.
	ErrCorrupt = errors.New("the database is damaged")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("store is closed")
	// ErrNoRevision: no change is stored under that revision, or it was dropped.
	ErrNoRevision = errors.New("no such revision in the database")
	// ErrStale: an image that is not newer than what was applied.
	ErrStale = errors.New("image is not ahead of the database")
	// ErrBatch: a Batch that breaks Apply's rules. Nothing of it was taken.
	ErrBatch = errors.New("malformed batch")
)
