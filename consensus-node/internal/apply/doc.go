// Package apply is the replicated state machine of a consensus node: it takes
// the committed entries of the raft log, one after the other, and holds what
// they add up to: the key space, the lease table with the view of the
// lease-service instances, the members, the alarms and the cluster version.
//
// It is a pure core: no files, goroutines, clocks or loggers. What an entry
// leads to comes out as data: a Batch for the database, outcomes for those who
// wait, and changes for the feed.
//
// # What it promises
//
//   - Applying is a function of the entry and of what was applied before. Two
//     nodes that apply the same entries give the same batches, byte for byte,
//     also if one of them was restored from its batches in between. Flags,
//     time, sizes of files and chance have no say: what depends on them was
//     settled when the entry was proposed.
//   - Every command of an entry succeeds or fails alone, with the response,
//     the error and the header revision that etcd gives.
//   - An error that Apply or ApplyConf returns means that the log or the
//     storage cannot be relied on, or that the entry needs a newer program.
//     The Machine may be half-way through the entry: the process must end.
//   - A View never changes and serves any goroutine.
//
// # What it asks of its caller
//
//  1. One goroutine at a time calls the methods of a Machine.
//  2. Every entry above the consistent index is passed on, in order and once,
//     also the empty ones with which leaders begin, for which the Entry is nil.
//     Anything else is answered with ErrIndex.
//  3. Requests were checked at their proposal (see mvcc.CheckPut and its like):
//     the shape of a request is not looked at again.
//  4. The Batch is in the store, readable through mvcc.Values, before the next
//     entry is applied or a View is handed out. The ConfState that raft answers
//     to a configuration change is put into its Batch before.
//  5. CompactStep is called between entries while Compacting. Its batches
//     depend on when it is called; nothing else does.
//  6. Cluster and member id are added to the response headers at the edge.
//
// Everything in a Result is shared with the Machine, the store and the feed,
// and nobody changes it.
package apply
