package restore

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/services/failure"
)

// A saved snapshot is a database, whose size is a multiple of the sector's, and the database's SHA-256 behind it.
const sectorBytes = 512

func hasHash(size int64) bool { return size%sectorBytes == sha256.Size }

func refuse(format string, args ...any) error {
	return failure.New(failure.Config, fmt.Sprintf(format, args...))
}

// checkHash compares the hash at the file's end with its content.
func checkHash(path string, skip bool) error {
	file, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	switch {
	case err != nil:
		return unreadable(path, err)
	case !info.Mode().IsRegular():
		return refuse("snapshot %s is no file: name the file that \"etcdctl snapshot save\" wrote", path)
	case skip:
		return nil
	case !hasHash(info.Size()):
		return refuse("snapshot %s has no hash at its end: it was cut short, save it again; "+
			"if it is the database of a stopped member, copied, add --skip-hash-check", path)
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, file, info.Size()-sha256.Size); err != nil {
		return unreadable(path, err)
	}
	want, err := io.ReadAll(file)
	if err != nil {
		return unreadable(path, err)
	}
	if got := sum.Sum(nil); !bytes.Equal(got, want) {
		return refuse("snapshot %s is damaged: expected sha256 %x, got %x; save it again", path, want, got)
	}
	return nil
}

func unreadable(path string, err error) error {
	switch {
	case errors.Is(err, store.ErrUnreadable):
		return failure.Wrap(failure.Config, "snapshot "+path+" cannot be restored", err)
	case errors.Is(err, store.ErrInUse):
		return refuse("snapshot %s is in use by a running member: save a snapshot with \"etcdctl snapshot save FILE\" and restore that", path)
	case errors.Is(err, fs.ErrNotExist):
		return refuse("snapshot %s does not exist: mend the name", path)
	}
	return failure.Wrap(failure.Config, "snapshot "+path+" cannot be read", err)
}

// Rows of etcd's schema that decide whether a snapshot can be restored.
const (
	authEnabledKey    = "authEnabled"
	storageVersionKey = "storageVersion"
	minorMax          = 7 // of the storage versions that this program knows
)

// checkContent refuses what a node could not serve as it is meant.
func checkContent(path string, source *store.Foreign) error {
	known, err := source.Has(store.BucketKey)
	switch {
	case err != nil:
		return unreadable(path, err)
	case !known:
		return refuse("snapshot %s is no database of etcd or Holdfast: it has no bucket %q", path, store.BucketKey)
	}
	enabled, err := source.Get(store.BucketAuth, authEnabledKey)
	switch {
	case err != nil:
		return unreadable(path, err)
	case len(enabled) == 1 && enabled[0] == 1:
		return refuse("snapshot %s has authentication enabled, which Holdfast does not enforce yet, so that its keys would lie open: "+
			"disable it (\"etcdctl auth disable\") and save the snapshot again", path)
	}
	version, err := source.Get(store.BucketMeta, storageVersionKey)
	if err != nil {
		return unreadable(path, err)
	}
	if !knownVersion(string(version)) {
		return refuse("snapshot %s has storage version %s, and up to 3.%d is known: restore it with a later Holdfast", path, version, minorMax)
	}
	return nil
}

// knownVersion tells whether a storage version can be read. Before 3.6 none is stored.
func knownVersion(version string) bool {
	if version == "" {
		return true
	}
	parts := strings.Split(version, ".")
	if len(parts) < 2 || parts[0] != "3" {
		return false
	}
	minor, err := strconv.Atoi(parts[1])
	return err == nil && minor <= minorMax
}
