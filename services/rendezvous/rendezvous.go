// Package rendezvous says which of several instances owns a lease, by
// rendezvous hashing: every instance gets a weight for the lease, and the
// highest weight wins.
//
// Consensus nodes decide by it whether a revoke comes from the owner,
// lease-services which leases are theirs, and proxies where a keepalive goes.
// All of them must come to the same answer, in every version that runs in one
// cluster: the weights are part of the protocol between the services and must
// never change.
//
// It promises that the owner depends on the id and the set of names alone, not
// on the order of the names; that the leases spread evenly; that an instance
// which leaves moves only the leases it owned; and that one which joins takes
// over leases but moves none between the others.
//
// It asks its caller for names without duplicates. With duplicates the first
// of equal names is the one returned.
package rendezvous

// Set is a set of names, prepared to look up many leases. It is immutable and
// safe for use from any goroutine. The zero value is empty.
type Set struct {
	names []string
	seeds []uint64
}

// New prepares names, which must not change afterwards.
func New(names []string) Set {
	seeds := make([]uint64, len(names))
	for i, name := range names {
		seeds[i] = seed(name)
	}
	return Set{names: names, seeds: seeds}
}

// Owner returns the position of the name that owns lease id, or -1 if the set
// is empty.
func (s Set) Owner(id int64) int {
	point := mix(uint64(id))
	owner, highest := -1, uint64(0)
	for i, seed := range s.seeds {
		weight := mix(seed ^ point)
		switch {
		case owner < 0 || weight > highest:
		case weight == highest && s.names[i] < s.names[owner]:
			// Equal weights must not be decided by the order of the names.
		default:
			continue
		}
		owner, highest = i, weight
	}
	return owner
}

// Owner returns the position in names of the owner of lease id, or -1 if there
// are no names. For many leases over the same names use New.
func Owner(id int64, names []string) int { return New(names).Owner(id) }

// seed is the 64-bit FNV-1a hash of the name, mixed: names that differ in the
// last character alone must differ in all bits.
func seed(name string) uint64 {
	const offset, prime = 0xcbf29ce484222325, 0x100000001b3
	h := uint64(offset)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * prime
	}
	return mix(h)
}

// mix is the finalizer of the splitmix64 generator, preceded by its increment
// so that 0 does not map to itself.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
