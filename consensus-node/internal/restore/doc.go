// Package restore makes the data directory of a node from a snapshot file, which etcd (3.4 to 3.7) or Holdfast saved. It runs
// while no node does.
//
// # What it promises
//
//   - Nothing is written before the snapshot's hash, its schema and what it says of authentication were looked at, and a directory
//     that is not empty is left as it is. The directory gets its content in one step: a restore that was interrupted leaves no
//     node that starts.
//   - Every key-value, revision, tombstone and compact revision is as in the snapshot, users, roles and alarms too. What is
//     raised is raised by etcd's own arithmetic: the next revision is the latest stored plus the bump, and all up to it is compacted.
//   - The cluster is a new one: members, cluster id, consistent index and log begin anew, the same on each member that is restored from
//     the same file with the same members. Nothing of the old cluster's members, versions or lease-services is left. Every lease
//     has its full TTL again.
//   - What was restored was read once as a node reads it at its start, so that a node can start with it.
//
// # What it asks of its caller
//
// Each member of the new cluster is restored from the same file and the same plan, but for Self and Dir.
package restore
