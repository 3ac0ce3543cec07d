// Package lease serves etcd's Lease calls: keepalives and remaining times from the lease-service instance that owns the
// lease, everything else from the consensus tier.
//
// It promises that answers on one client stream for one lease keep their order; that one dead owner holds up its own
// leases alone, until the view gives them to another; that a client's stream ends with Unavailable only when no instance is
// reachable; and that a revoke reaches the consensus tier only after the owner has stopped acknowledging keepalives of the
// lease, or its right to do so has run out.
//
// Owners come from the lease view of the topology, by rendezvous hashing over the instances' names; an instance that is asked
// in error tells the newer view.
package lease
