package store

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// Names of etcd's buckets. BucketKey is written through Batch.Writes and
// Batch.Drop alone, all others through Batch.Rows.
const (
	BucketKey            = "key"
	BucketMeta           = "meta"
	BucketLease          = "lease"
	BucketAlarm          = "alarm"
	BucketCluster        = "cluster"
	BucketMembers        = "members"
	BucketMembersRemoved = "members_removed"
	BucketAuth           = "auth"
	BucketAuthUsers      = "authUsers"
	BucketAuthRoles      = "authRoles"
)

// OwnPrefix begins the names of the buckets that etcd does not know.
const OwnPrefix = "holdfast_"

// markBucket marks a database as ours. Only this package writes it.
const (
	markBucket    = OwnPrefix + "meta"
	markFormat    = "format"
	formatVersion = "1"
)

// storageVersion tells etcd which schema the file has.
const storageVersion = "3.7.0"

// Keys of the meta bucket.
const (
	keyConsistentIndex  = "consistent_index"
	keyTerm             = "term"
	keyConfState        = "confState"
	keyStorageVersion   = "storageVersion"
	keyScheduledCompact = "scheduledCompactRev"
	keyFinishedCompact  = "finishedCompactRev"
)

// etcdBuckets are made with the file; etcd expects each of them.
func etcdBuckets() []string {
	return []string{
		BucketKey, BucketMeta, BucketLease, BucketAlarm, BucketCluster, BucketMembers,
		BucketMembersRemoved, BucketAuth, BucketAuthUsers, BucketAuthRoles,
	}
}

// writable says whether Batch.Rows may touch a key.
func writable(bucket string, key []byte) bool {
	switch bucket {
	case BucketMeta:
		k := string(key)
		return k != keyConsistentIndex && k != keyTerm && k != keyConfState
	case BucketLease, BucketAlarm, BucketCluster, BucketMembers, BucketMembersRemoved,
		BucketAuth, BucketAuthUsers, BucketAuthRoles:
		return true
	default:
		return strings.HasPrefix(bucket, OwnPrefix) && bucket != markBucket
	}
}

// ScheduledCompact notes that a compaction at rev was decided; it belongs in
// the batch of the entry that decides it, so that no restart forgets it.
func ScheduledCompact(rev int64) Row { return compactRow(keyScheduledCompact, rev) }

// FinishedCompact notes that nothing below rev is left in the file but what rev needs.
func FinishedCompact(rev int64) Row { return compactRow(keyFinishedCompact, rev) }

func compactRow(key string, rev int64) Row {
	return Row{
		Bucket: BucketMeta, Key: []byte(key),
		Value: mvcc.AppendBucketKey(nil, mvcc.Revision{Main: rev}, false),
	}
}

// encodeConfState returns it as etcd stores it: encoding/json over the Go
// struct, not protojson, whose numbers would be strings.
func encodeConfState(cs *raftpb.ConfState) ([]byte, error) { return json.Marshal(cs) }

func parseConfState(value []byte) (*raftpb.ConfState, error) {
	if value == nil {
		return nil, nil //nolint:nilnil // not every database has one
	}
	cs := &raftpb.ConfState{}
	if err := json.Unmarshal(value, cs); err != nil {
		return nil, fmt.Errorf("stored ConfState: %w", err)
	}
	return cs, nil
}

func cloneConfState(cs *raftpb.ConfState) *raftpb.ConfState {
	if cs == nil {
		return nil
	}
	return proto.CloneOf(cs)
}
