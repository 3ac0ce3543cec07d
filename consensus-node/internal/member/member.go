package member

import (
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Member is one node of the cluster.
type Member struct {
	ID uint64
	// Name and ClientURLs are what the member says of itself once it runs; both
	// are empty until then.
	Name       string
	ClientURLs []string
	// PeerURLs are where the other members reach it.
	PeerURLs []string
	// Learner says that it has no vote.
	Learner bool
}

// Started says whether the member has run at least once.
func (m Member) Started() bool { return m.Name != "" }

// Proto returns the member as etcd's API shows it.
func (m Member) Proto() *pb.Member {
	return &pb.Member{
		ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.Learner,
	}
}

// List is the members as of one entry of the log; immutable.
type List struct {
	members []Member // by id
	removed []uint64 // ascending
	version Version
}

// NewList returns a list as it was stored; members and removed come in any
// order and become the list's.
func NewList(members []Member, removed []uint64, version Version) *List {
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(removed)
	return &List{members: members, removed: removed, version: version}
}

// Members returns the members in the order of their ids. The slice is shared.
func (l *List) Members() []Member { return l.members }

// Removed returns the ids that were removed, ascending. The slice is shared.
func (l *List) Removed() []uint64 { return l.removed }

// ClusterVersion returns the version that every member speaks; zero until it
// was agreed on.
func (l *List) ClusterVersion() Version { return l.version }

// Changes counts how often a member came or went since the cluster began: each
// added one is listed or removed by now. It tells which of two lists is newer,
// unless they differ in names and URLs alone.
func (l *List) Changes() uint64 { return uint64(len(l.members) + 2*len(l.removed)) }

// Get returns the member of an id.
func (l *List) Get(id uint64) (Member, bool) {
	if i, ok := l.find(id); ok {
		return l.members[i], true
	}
	return Member{}, false
}

// IsRemoved says whether the id once was a member's and was removed.
func (l *List) IsRemoved(id uint64) bool {
	_, ok := slices.BinarySearch(l.removed, id)
	return ok
}

// Proto returns the members as etcd's API lists them.
func (l *List) Proto() []*pb.Member {
	out := make([]*pb.Member, len(l.members))
	for i, m := range l.members {
		out[i] = m.Proto()
	}
	return out
}

// Voters returns how many members vote, and how many of those have started.
func (l *List) Voters() (voters, started int) {
	for _, m := range l.members {
		if m.Learner {
			continue
		}
		voters++
		if m.Started() {
			started++
		}
	}
	return voters, started
}

func (l *List) find(id uint64) (int, bool) {
	return slices.BinarySearchFunc(l.members, id, func(m Member, id uint64) int { return cmp.Compare(m.ID, id) })
}

// with returns a list in which m is new or takes the place of its id.
func (l *List) with(m Member) *List {
	members := slices.Clone(l.members)
	if i, ok := l.find(m.ID); ok {
		members[i] = m
	} else {
		members = slices.Insert(members, i, m)
	}
	return &List{members: members, removed: l.removed, version: l.version}
}

// without returns a list in which id counts as removed.
func (l *List) without(id uint64) *List {
	i, _ := l.find(id)
	j, _ := slices.BinarySearch(l.removed, id)
	return &List{
		members: slices.Delete(slices.Clone(l.members), i, i+1),
		removed: slices.Insert(slices.Clone(l.removed), j, id),
		version: l.version,
	}
}

// WithAttributes returns a list in which a member has the given name and
// client URLs, and that member. Errors: ErrGRPCMemberNotFound, also for a
// member that was removed meanwhile.
func (l *List) WithAttributes(id uint64, name string, clientURLs []string) (*List, Member, error) {
	m, ok := l.Get(id)
	if !ok {
		return nil, Member{}, rpctypes.ErrGRPCMemberNotFound
	}
	m.Name, m.ClientURLs = name, clientURLs
	return l.with(m), m, nil
}

// WithClusterVersion returns a list at a cluster version. Errors: ErrDowngrade
// if it is below the present one.
func (l *List) WithClusterVersion(v Version) (*List, error) {
	if v.less(l.version) {
		return nil, ErrDowngrade
	}
	return &List{members: l.members, removed: l.removed, version: v}, nil
}
