package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Meta is what a database says of itself.
type Meta struct {
	// Index and Term are those of the last entry in it; 0 if there is none.
	Index, Term uint64
	// ConfState as of Index; nil if no entry has set one.
	ConfState *raftpb.ConfState
	// ScheduledCompact and FinishedCompact are -1 if there was none. A restart
	// counts the higher one as the compact revision.
	ScheduledCompact, FinishedCompact int64
	// StorageVersion is etcd's name of the schema.
	StorageVersion string
}

// CompactRevision is the newest compaction that the database knows of, -1 for none.
func (m Meta) CompactRevision() int64 { return max(m.ScheduledCompact, m.FinishedCompact) }

// ReadMeta returns what the database at path holds, without changing it. Its
// errors are those of Open.
func ReadMeta(path string) (meta Meta, err error) {
	defer recoverDamage(path, &err)()
	opts := Options{}.withDefaults()
	if _, err := inspect(path, opts, false); err != nil {
		return Meta{}, err
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: opts.LockTimeout})
	if err != nil {
		return Meta{}, openError(path, err)
	}
	err = db.View(func(tx *bbolt.Tx) (err error) {
		meta, err = readMeta(tx)
		return err
	})
	return meta, errors.Join(err, db.Close())
}

// readMeta reads the meta bucket within the transaction.
func readMeta(tx *bbolt.Tx) (m Meta, err error) {
	b := tx.Bucket([]byte(BucketMeta))
	number := func(key string) uint64 {
		v := b.Get([]byte(key))
		switch {
		case v == nil:
			return 0
		case len(v) != 8:
			err = errors.Join(err, fmt.Errorf("%w (%s has %d bytes)", ErrCorrupt, key, len(v)))
			return 0
		}
		return binary.BigEndian.Uint64(v)
	}
	compaction := func(key string) int64 {
		v := b.Get([]byte(key))
		if v == nil {
			return -1
		}
		rev, _, parseErr := mvcc.ParseBucketKey(v)
		if parseErr != nil {
			err = errors.Join(err, fmt.Errorf("%w (%s is %x)", ErrCorrupt, key, v))
		}
		return rev.Main
	}
	m = Meta{
		Index: number(keyConsistentIndex), Term: number(keyTerm),
		ScheduledCompact: compaction(keyScheduledCompact), FinishedCompact: compaction(keyFinishedCompact),
		StorageVersion: string(b.Get([]byte(keyStorageVersion))),
	}
	conf, confErr := parseConfState(b.Get([]byte(keyConfState)))
	if confErr != nil {
		err = errors.Join(err, fmt.Errorf("%w (%w)", ErrCorrupt, confErr))
	}
	m.ConfState = conf
	return m, err
}

// Meta returns what the committed part of the database says of itself.
func (s *Store) Meta() (Meta, error) {
	r, err := s.Reader()
	if err != nil {
		return Meta{}, err
	}
	defer r.Close()
	return r.v.base.meta.clone(), nil
}

func (m Meta) clone() Meta {
	m.ConfState = cloneConfState(m.ConfState)
	return m
}

// ForEach calls fn for each key of a bucket in key order, in the committed
// part of the database: it is there for the start, before the first Apply, and
// for the time after Install. A bucket that does not exist is empty. Keys and
// values are valid only during the call. An error of fn ends it and is
// returned.
func (s *Store) ForEach(bucket string, fn func(key, value []byte) error) error {
	r, err := s.Reader()
	if err != nil {
		return err
	}
	defer r.Close() // keeps the file open
	return r.v.base.file.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(key, value []byte) error {
			if err := fn(key, value); err != nil {
				return r.v.base.damaged(bucket, key, err)
			}
			return nil
		})
	})
}
