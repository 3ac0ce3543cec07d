package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// file is an open database file. The Store and every base hold a reference;
// the last one to go closes it, which lets go of its lock.
type file struct {
	db     *bbolt.DB
	refs   atomic.Int64
	closed chan struct{}
	err    error // of the close, once closed is closed
	// mapBytes is the address space that it may grow into.
	mapBytes int
}

// sizeMax is what the file should stay below, see Store.SizeMax.
func (f *file) sizeMax() int64 { return int64(f.mapBytes / 4 * 3) }

func (f *file) acquire() { f.refs.Add(1) }

func (f *file) release() {
	if f.refs.Add(-1) == 0 {
		f.err = f.db.Close()
		close(f.closed)
	}
}

// openFile opens an existing database of ours, or says why it is none. Nothing
// is written. deep says that each page is to be looked at: an image that came
// with a checksum needs no such look.
func openFile(path string, opts Options, deep bool) (*file, error) {
	size, err := inspect(path, opts, deep)
	if err != nil {
		return nil, err
	}
	return openChecked(path, size, opts)
}

// metaBytes is how long the two pages with the metadata are at least.
const metaBytes = 2 * 4096

// inspect looks at a database through a read-only handle, which touches only
// the pages it is asked for. Opening for writing walks all of them, and beyond
// the end of a file that was cut short that is a fault, not an error.
func inspect(path string, opts Options, deep bool) (size int64, err error) {
	defer recoverDamage(path, &err)()
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return 0, err
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%s: not a regular file: %w", path, fs.ErrInvalid)
	case info.Size() == 0: // bbolt would make a database of it
		return 0, damaged(path, errors.New("the file is empty"))
	case info.Size() < metaBytes:
		return 0, damaged(path, fmt.Errorf("pages 0 and 1, of which one must be whole: the file has %d bytes", info.Size()))
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: opts.LockTimeout})
	if err != nil {
		return 0, openError(path, err)
	}
	defer db.Close() //nolint:errcheck // nothing was written
	err = db.View(func(tx *bbolt.Tx) error {
		if err := checkSize(tx, info.Size()); err != nil {
			return damaged(path, err)
		}
		if deep {
			if err := checkPagesOf(path, tx); err != nil {
				return err
			}
		}
		return checkMark(path, tx)
	})
	return info.Size(), err
}

// checkSize names the first page that a file which was cut short has lost.
func checkSize(tx *bbolt.Tx, size int64) error {
	if tx.Size() <= size {
		return nil
	}
	pageSize := int64(tx.DB().Info().PageSize)
	missing := size / pageSize
	return &PageError{
		Page: uint64(missing), Offset: missing * pageSize, Err: fmt.Errorf("the file ends here, with %d bytes of %d", size, tx.Size()),
	}
}

// checkPagesOf is checkPages of a file that is read beside its memory map: a
// page that the disk cannot read is an error then and no fault.
func checkPagesOf(path string, tx *bbolt.Tx) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := checkPages(file, tx); err != nil {
		return damaged(path, err)
	}
	return nil
}

// damaged says what is wrong with the database at path.
func damaged(path string, err error) error { return fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err) }

// checkMark tells our databases from etcd's and from later ones of ours.
func checkMark(path string, tx *bbolt.Tx) error {
	mark := tx.Bucket([]byte(markBucket))
	if mark == nil {
		return fmt.Errorf("%s: %w", path, ErrForeign)
	}
	if v := mark.Get([]byte(markFormat)); string(v) != formatVersion {
		return fmt.Errorf("%s: %w: %q, not %q", path, ErrFormat, v, formatVersion)
	}
	for _, name := range etcdBuckets() {
		if tx.Bucket([]byte(name)) == nil {
			return damaged(path, fmt.Errorf("there is no bucket %q", name))
		}
	}
	return nil
}

func openChecked(path string, size int64, opts Options) (f *file, err error) {
	defer recoverDamage(path, &err)()
	mapBytes := max(opts.MapBytes, int(2*size))
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: opts.LockTimeout,
		NoSync:  opts.NoSync,
		// The freelist is rebuilt at Open instead of written with each commit.
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapBytes,
		// A commit that would have to move the map fails instead of waiting for
		// Readers that do not end: see the package comment.
		MaxSize: mapBytes - 1,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	f = &file{db: db, closed: make(chan struct{}), mapBytes: mapBytes}
	f.refs.Store(1)
	f.forgetPages() // of which the free ones were looked for
	return f, nil
}

// recoverDamage turns what bbolt and the memory map do on impossible pages
// into ErrCorrupt.
func recoverDamage(path string, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = damaged(path, fmt.Errorf("%v", p))
		}
	}
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s: %w", path, ErrInUse)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return damaged(path, fmt.Errorf("pages 0 and 1, of which one must be whole: %w", err))
	}
	return fmt.Errorf("open database %s: %w", path, err)
}

// syncFile makes the content of a file durable that somebody else wrote.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes the names in the directory of path durable.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
