// Package edge is what a consensus node offers to the outside: the Consensus service for proxies, watch-hubs and
// lease-services, and etcd's own KV, Cluster and Maintenance services for this one member on its admin address.
//
// It checks each request as etcd's API layer does, fixes at the proposal what replicated apply must not decide by itself
// (generated ids, TTL minimum), and answers. Reads go to a published view, writes to the packer.
//
// Promises: a call gets exactly one answer unless its stream ends; NotProposed is said only where raft surely never took
// the write; a linearizable answer holds everything acknowledged before the call arrived; no request makes the node
// panic, and each stream's queues are bounded. A streamed answer (Snapshot, RangeStream) is sent at its reader's pace from the
// memory of one message, holds no view while it waits for its reader, and ends with its caller's context.
package edge
