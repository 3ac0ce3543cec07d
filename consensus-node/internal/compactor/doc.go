// Package compactor decides when the leader compacts the history of its own accord, with etcd's cadence
// (server/etcdserver/api/v3compactor of etcd 3.7).
//
// It is a pure core: time is an argument, and what comes out is the revision to compact at. A Compactor is asked by Tick
// every Interval, by one goroutine.
//
//   - Periodic, retention R: the revision is sampled every tenth of R, or every six minutes if R is over an hour. Once R has
//     passed, the history is compacted at the revision of R ago, then every R again, or every hour if R is over an hour.
//   - Revision, retention N: every five minutes the history is compacted at N revisions below the newest.
//
// It samples on every node and decides on the leader alone, so that a new leader knows the revision of R ago if it has run
// for that long. A compaction that failed is tried again at the next tick; one that another leader was faster with counts
// as done.
package compactor
