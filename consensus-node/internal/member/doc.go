// Package member knows who belongs to the cluster: voters and learners, their
// names and URLs, which ids were removed for ever, and the cluster version that
// all of them speak. It also says how ids come about and turns the changes that
// users ask for into raft's configuration changes and back.
//
// It is a pure core, part of the replicated state. A List never changes: every
// change returns a new one, so that readers need no lock. Members are few.
//
// # What it promises
//
//   - A change is checked against the List it applies to, also at apply: what
//     was checked at the proposal may have been overtaken. The one refused has
//     changed nothing, and the caller gets a configuration change without
//     effect to hand to raft in its place.
//   - Ids and rows are those of etcd: the same initial cluster gets the same
//     ids, and the rows restore into etcd.
//   - A removed id never comes back.
//   - An update of the URLs of a learner leaves it a learner.
//
// # What it asks of its caller
//
// One configuration change is under way at a time, which raft sees to. The
// rows that a change touches are stored with its entry. Slices in a Member are
// shared and must not be changed.
package member
