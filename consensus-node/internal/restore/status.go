package restore

import (
	"crypto/sha256"
	"hash/crc32"
	"os"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
)

// Status is what a snapshot file says of itself, by etcdutl's names and arithmetic.
type Status struct {
	// Hash is a CRC-32C over every bucket's name, keys and values.
	Hash     uint32 `json:"hash"`
	Revision int64  `json:"revision"`
	TotalKey int    `json:"totalKey"`
	// TotalSize is that of the database, in bytes.
	TotalSize int64 `json:"totalSize"`
	// Version is etcd's name of the schema; empty before 3.6.
	Version string `json:"version"`
}

// ReadStatus reads the whole file. A hash at its end is checked. Its errors are of kind Config.
func ReadStatus(path string) (Status, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Status{}, unreadable(path, err)
	}
	if err := checkHash(path, info.Size()%sectorBytes != sha256.Size); err != nil {
		return Status{}, err
	}
	source, err := store.OpenForeign(path)
	if err != nil {
		return Status{}, unreadable(path, err)
	}
	defer func() { _ = source.Close() }() // it was only read
	var s Status
	if s.TotalSize, err = source.Size(); err != nil {
		return Status{}, unreadable(path, err)
	}
	version, err := source.Get(store.BucketMeta, storageVersionKey)
	if err != nil {
		return Status{}, unreadable(path, err)
	}
	s.Version = string(version)
	if err := s.sum(source); err != nil {
		return Status{}, unreadable(path, err)
	}
	return s, nil
}

// sum goes over all rows. The names of empty buckets count too.
func (s *Status) sum(source *store.Foreign) error {
	hash, keys := crc32.New(crc32.MakeTable(crc32.Castagnoli)), map[string]struct{}{}
	err := source.ForEach(func(bucket string) error {
		_, err := hash.Write([]byte(bucket))
		return err
	}, func(bucket string, key, value []byte) error {
		_, _ = hash.Write(key) // it cannot fail
		_, _ = hash.Write(value)
		if bucket != store.BucketKey {
			return nil
		}
		rev, tombstone, err := mvcc.ParseBucketKey(key)
		if err != nil {
			return err
		}
		s.Revision = rev.Main
		if name := keyOf(value); tombstone {
			delete(keys, name)
		} else {
			keys[name] = struct{}{}
		}
		return nil
	})
	s.Hash, s.TotalKey = hash.Sum32(), len(keys)
	return err
}

// keyOf is the key of an encoded key-value, which is its first field.
func keyOf(value []byte) string {
	for len(value) > 0 {
		field, kind, n := protowire.ConsumeTag(value)
		if n < 0 {
			return ""
		}
		if field == 1 && kind == protowire.BytesType {
			key, _ := protowire.ConsumeBytes(value[n:])
			return string(key)
		}
		skip := protowire.ConsumeFieldValue(field, kind, value[n:])
		if skip < 0 {
			return ""
		}
		value = value[n+skip:]
	}
	return ""
}
