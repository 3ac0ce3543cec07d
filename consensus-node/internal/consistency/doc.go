// Package consistency compares what the members of a cluster hold. Nodes that applied the same entries have the same key space; a bug, a
// disk that lies or a hand in the file can break that, and this is what finds it.
//
// # What it promises
//
//   - Hashes are compared only where they must agree: at one revision and one compact revision. A member that cannot be reached, or is at
//     another compact revision, is passed over, never accused.
//   - Initial compares this member's key space, as it lies on the disk, with the others' before the member takes part in anything. Any
//     difference is an error, as in etcd: which of the two is right nobody can tell yet.
//   - Compare is the leader's round. Where a majority of all members has one hash, each member with another is accused. Without such a
//     majority member 0 is: the whole cluster, as in etcd's compact hash check. A member that claims revisions or compactions that the
//     leader, confirmed afterwards, does not know is accused too.
//   - Who is accused gets the CORRUPT alarm, once: not again while it is raised.
//   - Compacted is Compare at the last compaction alone, once for each that all members were seen to agree on.
//
// # What it asks of its caller
//
// The Cluster's calls end with their context. Compare and Compacted are called by the leader, one at a time.
package consistency
