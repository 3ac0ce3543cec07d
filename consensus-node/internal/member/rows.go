package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Where the members lie in the database file: etcd's buckets.
const (
	Bucket        = "members"         // see Row
	RemovedBucket = "members_removed" // under RowKey: RemovedMark
	ClusterBucket = "cluster"         // VersionKey: Version as text
	VersionKey    = "clusterVersion"
	RemovedMark   = "removed"
)

// ErrRow is wrapped by the errors for rows that cannot be read: the database
// is damaged.
var ErrRow = errors.New("member: malformed row")

// row has the fields, names and order of etcd's membership.Member.
type row struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// RowKey is the key of a member in Bucket and RemovedBucket: its id in hex.
func RowKey(id uint64) []byte { return strconv.AppendUint(nil, id, 16) }

// ParseRowKey is the reverse of RowKey.
func ParseRowKey(key []byte) (uint64, error) {
	id, err := strconv.ParseUint(string(key), 16, 64)
	if err != nil || id == 0 {
		return 0, fmt.Errorf("%w: member id %q", ErrRow, key)
	}
	return id, nil
}

// Row is the row of a member in Bucket, in etcd's JSON.
func Row(m Member) (key, value []byte, err error) {
	value, err = json.Marshal(row{
		ID: m.ID, PeerURLs: m.PeerURLs, IsLearner: m.Learner, Name: m.Name, ClientURLs: m.ClientURLs,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("member: encoding %x: %w", m.ID, err)
	}
	return RowKey(m.ID), value, nil
}

// ParseRow is the reverse of Row.
func ParseRow(key, value []byte) (Member, error) {
	id, err := ParseRowKey(key)
	if err != nil {
		return Member{}, err
	}
	r := row{ID: id}
	if err := json.Unmarshal(value, &r); err != nil {
		return Member{}, fmt.Errorf("%w: member %s: %w", ErrRow, key, err)
	}
	if r.ID != id {
		return Member{}, fmt.Errorf("%w: member %s holds id %x", ErrRow, key, r.ID)
	}
	return Member{ID: id, PeerURLs: r.PeerURLs, Learner: r.IsLearner, Name: r.Name, ClientURLs: r.ClientURLs}, nil
}
