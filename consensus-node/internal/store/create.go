package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// newSuffix names a file that is being made. One that a crash left behind is
// overwritten.
const newSuffix = ".new"

// createFile makes an empty database under another name and gives it its own
// when it is whole, so that no crash leaves half of one.
func createFile(path string, opts Options) (f *file, err error) {
	temp := path + newSuffix
	if err := removeStale(temp); err != nil {
		return nil, err
	}
	f, err = openChecked(temp, 0, opts)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.release()
			err = errors.Join(fmt.Errorf("create database %s: %w", path, err), removeStale(temp))
			f = nil
		}
	}()
	if err := f.db.Update(initialize); err != nil {
		return f, err
	}
	if err := os.Rename(temp, path); err != nil {
		return f, err
	}
	return f, syncDir(path)
}

func initialize(tx *bbolt.Tx) error {
	for _, name := range append(etcdBuckets(), markBucket) {
		if _, err := tx.CreateBucket([]byte(name)); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return errors.Join(
		tx.Bucket([]byte(BucketMeta)).Put([]byte(keyStorageVersion), []byte(storageVersion)),
		tx.Bucket([]byte(markBucket)).Put([]byte(markFormat), []byte(formatVersion)),
	)
}

// CreateFromImage writes the bytes of an Image to a new database at path and
// returns what it holds. It returns fs.ErrExist, wrapped, if there is a file at
// path; ErrForeign, ErrFormat or ErrCorrupt for what is no whole image of ours.
// After an error there is none.
func CreateFromImage(path string, image io.Reader) (meta Meta, err error) {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return Meta{}, fmt.Errorf("create database %s: %w", path, err)
	}
	temp := path + newSuffix
	defer func() {
		if err != nil {
			err = errors.Join(err, removeStale(temp))
		}
	}()
	if err := writeDurably(temp, image); err != nil {
		return Meta{}, fmt.Errorf("create database %s: %w", path, err)
	}
	if meta, err = ReadMeta(temp); err != nil {
		return Meta{}, err
	}
	if err := os.Rename(temp, path); err != nil {
		return Meta{}, fmt.Errorf("create database %s: %w", path, err)
	}
	return meta, syncDir(path)
}

func writeDurably(path string, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
