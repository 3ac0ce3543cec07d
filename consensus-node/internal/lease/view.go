package lease

import (
	"github.com/tidwall/btree"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// View is the lease table as of one number of the lease sequence (and one
// state of the key space), immutable and safe for use from any goroutine.
type View struct{ state }

// state is the part that a View and the Table have in common.
type state struct {
	leases   *btree.Map[uint64, Lease]
	keys     *btree.BTreeG[attachment]
	sequence uint64
	cluster  *feedv1.View   // never changed, replaced as a whole
	owners   rendezvous.Set // of cluster's instances, in their order
}

// Sequence is the number of the last change.
func (s *state) Sequence() uint64 { return s.sequence }

// Cluster returns the view of the lease-service instances. It is shared and
// must not be changed.
func (s *state) Cluster() *feedv1.View { return s.cluster }

// Len returns how many leases there are.
func (s *state) Len() int { return s.leases.Len() }

// Get returns a lease.
func (s *state) Get(id int64) (Lease, bool) {
	return s.leases.Get(uint64(id))
}

// Exists says whether there is a lease of this id.
func (s *state) Exists(id int64) bool {
	_, ok := s.Get(id)
	return ok
}

// Page returns up to limit leases that come after id in the table's order, and
// whether there are more behind them. Id 0 is the start. The order is that of
// the ids' bits: positive ids ascending, then negative ones ascending.
func (s *state) Page(after int64, limit int) (leases []Lease, more bool) {
	if uint64(after) == ^uint64(0) { // nothing comes after it, and 0 would
		return nil, false
	}
	s.leases.Ascend(uint64(after)+1, func(_ uint64, l Lease) bool {
		if len(leases) >= limit {
			more = true
			return false
		}
		leases = append(leases, l)
		return true
	})
	return leases, more
}

// Keys returns the keys that hang on a lease, sorted. They are the caller's.
func (s *state) Keys(id int64) [][]byte {
	var keys [][]byte
	s.keys.Ascend(attachment{lease: uint64(id)}, func(a attachment) bool {
		if a.lease != uint64(id) {
			return false
		}
		keys = append(keys, []byte(a.key))
		return true
	})
	return keys
}

// Owner returns the instance that owns a lease id under the present view,
// whether the lease exists or not; nil if no instance is alive. The result is
// shared and must not be changed.
func (s *state) Owner(id int64) *feedv1.Instance {
	if i := s.owners.Owner(id); i >= 0 {
		return s.cluster.Instances[i]
	}
	return nil
}

// Claim is how an instance signs what it decides about leases: who it is, and
// the epoch of the view by which it took them for its own.
type Claim struct {
	Name        string
	Incarnation uint64
	Epoch       uint64
}

// Owns says whether the claim holds for a lease id. The epoch must be the
// present one, not only the owner the same: between two epochs the lease may
// have belonged to another, who may have acknowledged a keepalive that the
// speaker knows nothing of.
func (s *state) Owns(c Claim, id int64) bool {
	owner := s.Owner(id)
	return owner != nil && c.Epoch == s.cluster.Epoch &&
		owner.Name == c.Name && owner.Incarnation == c.Incarnation
}
