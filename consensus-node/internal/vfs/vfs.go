// Package vfs is the small file system that the raft log stands on: just the calls whose durability the log reasons
// about, so that a test can put a file system under it that loses, tears and flips what a real one may.
//
// It promises no more than a POSIX file system does. A write is visible to every reader at once and survives the end of the
// process, but survives a power cut only after Datasync or Sync returned nil; before that any part of it, in any order, may have
// reached the disk. A name (created, renamed, removed) survives only after SyncDir of its directory. After a failed Datasync or
// Sync the kernel may have marked the lost pages clean: a later success proves nothing about them, so the caller must stop, never
// call it again and go on.
//
// [OS] is the real one; package faultfs holds the one for tests.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked is returned by [FS.Lock] while another holder, of this process or another, has the lock.
var ErrLocked = errors.New("locked by another process")

// FS is a file system. Names are paths as the os package takes them. A missing file gives an error that is fs.ErrNotExist. All
// methods may be called at the same time.
type FS interface {
	// MkdirAll makes dir and its missing parents, durably: it syncs the parents whose entries it made.
	MkdirAll(dir string) error
	// Create makes a new empty file for reading and writing; an existing one gives fs.ErrExist.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenReadOnly opens an existing file; writes to it fail.
	OpenReadOnly(name string) (File, error)
	// Rename gives a file a new name in one step and replaces what bore it. Open files stay open.
	Rename(oldname, newname string) error
	// Remove takes a name away. Open files stay usable until closed.
	Remove(name string) error
	// List returns the names (not paths) in dir in ascending order.
	List(dir string) ([]string, error)
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes the exclusive lock of the file name, which it creates if missing, and never waits: a taken lock gives ErrLocked.
	// The lock ends with Close of what is returned, or with the process.
	Lock(name string) (io.Closer, error)
}

// File is an open file. ReadAt and WriteAt follow the io package's contracts (WriteAt that writes less than asked returns
// an error, and does not keep p). All methods may be called at the same time.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size returns the length in bytes.
	Size() (int64, error)
	// Truncate sets the length; what it adds reads as zeros and has no blocks reserved.
	Truncate(size int64) error
	// Preallocate makes the file at least size bytes long with blocks reserved for all of them, so that later writes below
	// size cannot meet a full disk. What it adds reads as zeros; what is there stays.
	Preallocate(size int64) error
	// Datasync makes the content and the length durable (fdatasync): times and the like may be left out.
	Datasync() error
	// Sync makes content and all metadata of the file durable (fsync). The name needs SyncDir as well.
	Sync() error
}
