package member

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // etcd's ids; nothing rests on its strength
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// InitialID returns the id of a member of an initial cluster, as etcd computes
// it from the sorted peer URLs and the cluster token.
func InitialID(peerURLs []string, token string) uint64 { return hashURLs(peerURLs, token) }

// NewID returns the id of a member that joins a running cluster, as etcd
// computes it: the time makes that a member which was removed can join again
// with the same URLs. It is chosen at the proposal and travels in the entry.
func NewID(peerURLs []string, nowUnixS int64) uint64 {
	return hashURLs(peerURLs, strconv.FormatInt(nowUnixS, 10))
}

func hashURLs(peerURLs []string, suffix string) uint64 {
	sorted := slices.Sorted(slices.Values(peerURLs))
	return first8(append([]byte(strings.Join(sorted, "")), suffix...))
}

// ClusterID returns the id of a cluster that starts with these members, as
// etcd computes it from their sorted ids. It stays when members change.
func ClusterID(initial []Member) uint64 {
	ids := make([]uint64, len(initial))
	for i, m := range initial {
		ids[i] = m.ID
	}
	slices.Sort(ids)
	var b []byte
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	return first8(b)
}

func first8(b []byte) uint64 {
	sum := sha1.Sum(b) //nolint:gosec // as above
	return binary.BigEndian.Uint64(sum[:8])
}

// Initial returns the members of an initial cluster, by id, from the peer URLs
// of each name. It fails if two members get the same id, which means the same
// URLs, or if one gets 0, which raft cannot use.
func Initial(token string, peers map[string][]string) ([]Member, error) {
	var members []Member
	byID := make(map[uint64]string, len(peers))
	for _, name := range slices.Sorted(maps.Keys(peers)) {
		id := InitialID(peers[name], token)
		if id == 0 {
			return nil, fmt.Errorf("member %s gets id 0 from its peer URLs and the cluster token: change the token", name)
		}
		if other, ok := byID[id]; ok {
			return nil, fmt.Errorf("members %s and %s have the same peer URLs", other, name)
		}
		byID[id] = name
		members = append(members, Member{ID: id, Name: name, PeerURLs: slices.Clone(peers[name])})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return members, nil
}
