package lease

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Where the table lies in the database file.
const (
	// Bucket is etcd's: one row per lease, see Row.
	Bucket = "lease"
	// ClusterBucket is this project's own: the lease sequence and the view of
	// the lease-service instances.
	ClusterBucket = "holdfast_lease"
	// SequenceKey and ViewKey are the rows of ClusterBucket.
	SequenceKey = "sequence"
	ViewKey     = "view"
)

// ErrRow is wrapped by the errors for rows that cannot be read: the database
// is damaged.
var ErrRow = errors.New("lease: malformed row")

// Field numbers of etcd's leasepb.Lease.
const (
	fieldID        protowire.Number = 1
	fieldTTL       protowire.Number = 2
	fieldRemaining protowire.Number = 3
	// These are this project's own, far from what etcd may add: etcd skips fields
	// that it does not know.
	fieldGranted    protowire.Number = 100
	fieldCheckpoint protowire.Number = 101
)

// RowKey is the key of a lease in Bucket: its id, big-endian.
func RowKey(id int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(id))
}

// Row is the row of a lease in Bucket, in the format of etcd's leasepb.Lease
// and with two fields more.
func Row(l Lease) (key, value []byte) {
	value = appendField(nil, fieldID, l.ID)
	value = appendField(value, fieldTTL, l.TTLS)
	value = appendField(value, fieldRemaining, l.RemainingTTLS)
	value = appendField(value, fieldGranted, int64(l.GrantedSequence))
	value = appendField(value, fieldCheckpoint, int64(l.CheckpointSequence))
	return RowKey(l.ID), value
}

func appendField(dst []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, uint64(v))
}

// ParseRow is the reverse of Row. Fields it does not know are skipped, and a row
// that etcd wrote has no GrantedSequence.
func ParseRow(key, value []byte) (Lease, error) {
	var l Lease
	for rest := value; len(rest) > 0; {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return Lease{}, fmt.Errorf("%w: lease %x: %w", ErrRow, key, protowire.ParseError(n))
		}
		rest = rest[n:]
		if kind != protowire.VarintType {
			if n = protowire.ConsumeFieldValue(field, kind, rest); n < 0 {
				return Lease{}, fmt.Errorf("%w: lease %x: %w", ErrRow, key, protowire.ParseError(n))
			}
			rest = rest[n:]
			continue
		}
		v, n := protowire.ConsumeVarint(rest)
		if n < 0 {
			return Lease{}, fmt.Errorf("%w: lease %x: %w", ErrRow, key, protowire.ParseError(n))
		}
		rest = rest[n:]
		switch field {
		case fieldID:
			l.ID = int64(v)
		case fieldTTL:
			l.TTLS = int64(v)
		case fieldRemaining:
			l.RemainingTTLS = int64(v)
		case fieldGranted:
			l.GrantedSequence = v
		case fieldCheckpoint:
			l.CheckpointSequence = v
		default:
		}
	}
	if len(key) != 8 || l.ID == 0 || binary.BigEndian.Uint64(key) != uint64(l.ID) {
		return Lease{}, fmt.Errorf("%w: lease %x holds id %d", ErrRow, key, l.ID)
	}
	return l, nil
}

// SequenceRow is the value of SequenceKey.
func SequenceRow(sequence uint64) []byte { return binary.BigEndian.AppendUint64(nil, sequence) }

// ParseSequence is the reverse of SequenceRow.
func ParseSequence(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: lease sequence of %d bytes", ErrRow, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

// ViewRow is the value of ViewKey.
func ViewRow(view *feedv1.View) ([]byte, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(view)
	if err != nil {
		return nil, fmt.Errorf("lease: encoding the view: %w", err)
	}
	return value, nil
}

// ParseView is the reverse of ViewRow.
func ParseView(value []byte) (*feedv1.View, error) {
	view := &feedv1.View{}
	if err := proto.Unmarshal(value, view); err != nil {
		return nil, fmt.Errorf("%w: view: %w", ErrRow, err)
	}
	return view, nil
}
