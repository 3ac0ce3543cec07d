package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Rows of the meta bucket in which the store keeps a Batch's Index and Term.
const (
	ConsistentIndexKey = "consistent_index"
	TermKey            = "term"
)

// ErrRow is wrapped by the errors for rows that cannot be read: the database
// is damaged.
var ErrRow = errors.New("apply: malformed row")

// Loader reads what batches have stored, all as of one transaction.
type Loader interface {
	// Revisions calls fn for every change of the key space in the order of
	// revisions. kv is not used after fn returns.
	Revisions(fn func(rev mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error) error
	// Rows calls fn for every row of a bucket in the order of keys; none if
	// there is no such bucket. key and value are not used after fn returns.
	Rows(bucket string, fn func(key, value []byte) error) error
}

// Restore makes the Machine that the batches in a database came from. Errors
// mean that the database cannot be read or is damaged.
func Restore(l Loader) (*Machine, error) {
	m := New()
	scheduled, err := m.restoreMeta(l)
	if err != nil {
		return nil, err
	}
	keys := mvcc.NewLoader(max(scheduled, m.finished))
	if err := l.Revisions(keys.Add); err != nil {
		return nil, fmt.Errorf("apply: restoring the key space: %w", err)
	}
	m.kv = keys.State()
	for _, restore := range []func(Loader) error{m.restoreLeases, m.restoreMembers, m.restoreAlarms} {
		if err := restore(l); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Machine) restoreMeta(l Loader) (scheduled int64, err error) {
	scheduled = -1
	err = l.Rows(MetaBucket, func(key, value []byte) (err error) {
		switch string(key) {
		case ConsistentIndexKey:
			m.index, err = parseUint64(key, value)
		case TermKey:
			m.term, err = parseUint64(key, value)
		case ScheduledCompactKey:
			scheduled, err = parseCompact(key, value)
		case FinishedCompactKey:
			m.finished, err = parseCompact(key, value)
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("apply: restoring %s: %w", MetaBucket, err)
	}
	return scheduled, nil
}

func parseUint64(key, value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: %s has %d bytes", ErrRow, key, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func parseCompact(key, value []byte) (int64, error) {
	rev, _, err := mvcc.ParseBucketKey(value)
	if err != nil {
		return 0, fmt.Errorf("%w: %s: %w", ErrRow, key, err)
	}
	return rev.Main, nil
}

func (m *Machine) restoreLeases(l Loader) error {
	load := lease.Load{Keys: m.kv.Leased}
	err := l.Rows(lease.Bucket, func(key, value []byte) error {
		row, err := lease.ParseRow(key, value)
		load.Leases = append(load.Leases, row)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the leases: %w", err)
	}
	err = l.Rows(lease.ClusterBucket, func(key, value []byte) (err error) {
		switch string(key) {
		case lease.SequenceKey:
			load.Sequence, err = lease.ParseSequence(value)
		case lease.ViewKey:
			load.View, err = lease.ParseView(value)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the lease view: %w", err)
	}
	m.leases = lease.Restore(load)
	return nil
}

func (m *Machine) restoreMembers(l Loader) error {
	var members []member.Member
	var removed []uint64
	var version member.Version
	err := l.Rows(member.Bucket, func(key, value []byte) error {
		mb, err := member.ParseRow(key, value)
		members = append(members, mb)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the members: %w", err)
	}
	err = l.Rows(member.RemovedBucket, func(key, _ []byte) error {
		id, err := member.ParseRowKey(key)
		removed = append(removed, id)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the removed members: %w", err)
	}
	err = l.Rows(member.ClusterBucket, func(key, value []byte) (err error) {
		if string(key) == member.VersionKey {
			version, err = member.ParseVersion(string(value))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the cluster version: %w", err)
	}
	m.members = member.NewList(members, removed, version)
	return nil
}

func (m *Machine) restoreAlarms(l Loader) error {
	err := l.Rows(AlarmBucket, func(key, _ []byte) error {
		al, err := parseAlarm(key)
		m.alarms = append(m.alarms, al)
		return err
	})
	if err != nil {
		return fmt.Errorf("apply: restoring the alarms: %w", err)
	}
	slices.SortFunc(m.alarms, compareAlarms)
	return nil
}
