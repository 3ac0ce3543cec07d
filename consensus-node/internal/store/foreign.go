package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"strings"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/raft/v3/raftpb"
)

// ErrUnreadable is wrapped by the errors for a file that is no whole database.
var ErrUnreadable = errors.New("the file is no database, or is damaged")

// Foreign is a database in etcd's schema that is only read: one that etcd
// wrote, or a saved snapshot of ours. What follows its pages, such as the hash
// of a snapshot, is passed over. It is for one goroutine.
type Foreign struct {
	path string
	db   *bbolt.DB
}

// OpenForeign opens the database at path, which nobody may have open for
// writing. The caller closes it. Errors: ErrUnreadable, ErrInUse, those of the
// os package.
func OpenForeign(path string) (f *Foreign, err error) {
	defer recoverUnreadable(path, &err)()
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file: %w", path, fs.ErrInvalid)
	case info.Size() == 0: // bbolt waits for it to become a database
		return nil, fmt.Errorf("%s: %w (it is empty)", path, ErrUnreadable)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: DefaultLockTimeout})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, err
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%s: %w", path, ErrInUse)
	case err != nil:
		return nil, fmt.Errorf("%s: %w (%w)", path, ErrUnreadable, err)
	}
	f = &Foreign{path: path, db: db}
	err = db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%s: %w (it has %d bytes of %d)", path, ErrUnreadable, info.Size(), tx.Size())
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return f, nil
}

// Close lets go of the file.
func (f *Foreign) Close() error { return f.db.Close() }

// Size is how many bytes the database's pages take.
func (f *Foreign) Size() (size int64, err error) {
	err = f.view(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	return size, err
}

// Get returns a copy of a row's value; nil if there is none.
func (f *Foreign) Get(bucket, key string) (value []byte, err error) {
	err = f.view(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(bucket)); b != nil {
			value = append(value, b.Get([]byte(key))...)
		}
		return nil
	})
	return value, err
}

// ForEach calls begin for each bucket and row for each of its rows, the buckets
// by name and the rows by key. Key and value are valid during the call. An
// error of either ends it and is returned.
func (f *Foreign) ForEach(begin func(bucket string) error, row func(bucket string, key, value []byte) error) error {
	return f.view(func(tx *bbolt.Tx) error { return forEachRow(tx, begin, row) })
}

// Has tells whether there is a bucket.
func (f *Foreign) Has(bucket string) (has bool, err error) {
	err = f.view(func(tx *bbolt.Tx) error { has = tx.Bucket([]byte(bucket)) != nil; return nil })
	return has, err
}

func forEachRow(tx *bbolt.Tx, begin func(bucket string) error, fn func(bucket string, key, value []byte) error) error {
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		bucket := string(name)
		if b == nil {
			return fmt.Errorf("%w (%q is no bucket)", ErrUnreadable, bucket)
		}
		if err := begin(bucket); err != nil {
			return err
		}
		return b.ForEach(func(key, value []byte) error {
			if value == nil {
				return fmt.Errorf("%w (bucket %q in bucket %q)", ErrUnreadable, key, bucket)
			}
			return fn(bucket, key, value)
		})
	})
}

func (f *Foreign) view(fn func(tx *bbolt.Tx) error) (err error) {
	defer recoverUnreadable(f.path, &err)()
	return f.db.View(fn)
}

// recoverUnreadable turns what bbolt and the memory map do on impossible pages
// into ErrUnreadable.
func recoverUnreadable(path string, err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = fmt.Errorf("%s: %w (%v)", path, ErrUnreadable, p)
		}
	}
}

// Import says what becomes of a Foreign database.
type Import struct {
	// Row decides over each row: what is stored as its value, and whether it is
	// kept at all. Its error ends the import and is returned.
	Row func(bucket string, key, value []byte) (stored []byte, keep bool, err error)
	// End gives further rows when all were seen.
	End func() []Row
	// Index, Term and ConfState are those of the entry that the new log begins behind.
	Index, Term uint64
	ConfState   *raftpb.ConfState
	// MapBytes is the least address space to map while writing; 0 is the file's need.
	MapBytes int
}

// importBatchBytes bounds one transaction of an import.
const importBatchBytes = 8 << 20

// Import writes the rows to a new database of ours at path, durably. Buckets of
// ours are left out. Free pages are not carried over. Errors: ErrUnreadable for
// the source, that of Row, those of the os package for the new file, which is
// left as it is.
func (f *Foreign) Import(path string, im Import) error {
	conf, err := encodeConfState(im.ConfState)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: DefaultLockTimeout, NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType,
		InitialMmapSize: im.MapBytes,
	})
	if err != nil {
		return err
	}
	w := &importer{db: db}
	err = f.view(func(tx *bbolt.Tx) error { return w.run(tx, im, conf) })
	if w.tx != nil {
		err = errors.Join(err, w.tx.Rollback())
	}
	if err == nil {
		err = db.Sync()
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	return syncDir(path)
}

// importer writes rows in transactions of bounded size.
type importer struct {
	db    *bbolt.DB
	tx    *bbolt.Tx // nil between two
	bytes int
}

func (w *importer) run(source *bbolt.Tx, im Import, conf []byte) error {
	if err := w.db.Update(initialize); err != nil {
		return err
	}
	err := forEachRow(source, func(string) error { return nil }, func(bucket string, key, value []byte) error {
		if strings.HasPrefix(bucket, OwnPrefix) {
			return nil
		}
		stored, keep, err := im.Row(bucket, key, value)
		if err != nil || !keep {
			return err
		}
		return w.put(bucket, key, stored)
	})
	if err != nil {
		return err
	}
	rows := append(im.End(),
		Row{Bucket: BucketMeta, Key: []byte(keyConsistentIndex), Value: binary.BigEndian.AppendUint64(nil, im.Index)},
		Row{Bucket: BucketMeta, Key: []byte(keyTerm), Value: binary.BigEndian.AppendUint64(nil, im.Term)},
		Row{Bucket: BucketMeta, Key: []byte(keyConfState), Value: conf},
		Row{Bucket: BucketMeta, Key: []byte(keyStorageVersion), Value: []byte(storageVersion)},
	)
	for _, row := range rows {
		if err := w.put(row.Bucket, row.Key, row.Value); err != nil {
			return err
		}
	}
	return w.commit()
}

func (w *importer) put(bucket string, key, value []byte) error {
	if w.tx == nil {
		tx, err := w.db.Begin(true)
		if err != nil {
			return err
		}
		w.tx = tx
	}
	b, err := w.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	b.FillPercent = 0.9 // rows come in order
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("%w (%w)", ErrUnreadable, err) // a key that cannot be
	}
	if w.bytes += len(key) + len(value); w.bytes >= importBatchBytes {
		return w.commit()
	}
	return nil
}

// commit leaves the transaction where it panics, as it does over rows of a damaged source: it must be rolled back, or the database could
// not be closed.
func (w *importer) commit() error {
	if w.tx == nil {
		return nil
	}
	err := w.tx.Commit()
	w.tx, w.bytes = nil, 0
	return err
}
