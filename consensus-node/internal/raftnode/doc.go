// Package raftnode runs one member of the consensus group: it owns the raft state machine, writes its log, hands committed entries
// to the state machine and finds read indexes.
//
// # What it promises
//
//   - [Applier.Apply] sees every committed entry once per run, in order, from one goroutine, and only after the entry is durable in the
//     log of this node.
//   - Nothing that raft promises to others (a vote, an acknowledged append) leaves this node before the log that backs it is durable.
//   - [Node.Propose] returns an error only if the entry was certainly not proposed. With nil the entry is in the log of a leader and
//     may still be lost; its outcome comes through the Applier, or never.
//   - [Node.ReadIndex] returns an index that covers everything acknowledged anywhere before the call, confirmed by a majority after
//     the call began. No answer to an older question counts, and no clock is trusted.
//   - The log is cut only below what the database has made durable.
//   - The first failure of the log, of the Applier or of raft's own checks ends Run with a [*FatalError]; no response that rests on the
//     failed write is sent.
//
// # What it asks of its caller
//
//   - Run once, then the Log is closed by whoever opened it. Run returns nil only for an ended context.
//   - The [Applier] calls [Node.ApplyConfChange] for each membership change that it accepts, from within Apply, and for no other.
//   - The database is open, and holds its index, term and membership (ConfState) of one and the same transaction, before New. A database that
//     is behind the log's snapshot mark is first replaced by the image that [IncomingImage] names.
//   - The [Transport] never blocks in Send and treats messages as read-only.
//   - A caller of ReadIndex waits until its own state has applied the index before it reads.
//
// Who runs what, and why in this order, stands in DESIGN.md beside this file.
package raftnode
