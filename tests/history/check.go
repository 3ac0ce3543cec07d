package history

import "time"

// Check holds the whole record against all promises. Times of day play no part in it but for within, which bounds the
// search for an order of the operations.
func Check(r *Record, within time.Duration) (*Joined, []Violation) {
	ops := r.Ops()
	j, violations := Join(r.Watches())
	leases := r.Leases()
	resolved, more := Resolve(ops, leases, j)
	for _, list := range [][]Violation{
		more, CheckReads(ops, j), CheckOrder(resolved), CheckFuture(ops, resolved), CheckWatches(r, j),
		CheckLeases(leases, resolved, j), CheckHashes(r.Hashes()), CheckLinearizable(resolved, within),
	} {
		violations = append(violations, list...)
	}
	return j, violations
}
