// Package lease knows which leases exist, what keys hang on them, and which
// lease-service instances are alive by agreement and so own them. It keeps no
// clock: how long a lease still has is its owner's to know.
//
// It is a pure core, part of the replicated state: a Table changes by applied
// entries alone, and two nodes that applied the same entries hold the same
// table.
//
// # What it promises
//
//   - Every change of the lease table takes the next number of the lease
//     sequence, without gaps: a grant, a revoke, a view change, a checkpoint.
//     Attaching keys takes none. A follower that has seen the changes up to a
//     number holds the table of that number.
//   - A change that returns an error has changed nothing and took no number.
//   - A View never changes, costs O(1) to take, and serves any goroutine.
//   - Nothing that comes out depends on the order of a Go map.
//
// # What it asks of its caller
//
// One goroutine at a time calls the methods of a Table. The keys of a revoked
// lease are deleted from the key space in the same step, and what the key
// space says about keys that move between leases is passed on through Detach
// and Attach, in that order. The rows that a change touches (Row, and the
// bucket of this package's own) are stored with the entry that changed them.
package lease
