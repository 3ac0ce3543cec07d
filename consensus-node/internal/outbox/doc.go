// Package outbox keeps the last applied changes in memory and tells them to whoever follows.
//
// Apply appends to a Ring and goes on: it never waits for a follower. The ring holds the newest changes up to a bound in
// bytes, across compaction and changes of leader, so that a follower that lost a message finds it here even if the
// revision has been compacted meanwhile. A Cursor walks the ring for one follower: the bus publisher, a direct feed
// stream, or one history request. A cursor that falls off the ring's end is told so by a message without body for
// the interval it missed, and the follower fetches that from history.
//
// While no hub says that somebody watches (Interest), the publisher gathers changes for some milliseconds: fewer messages, each hub as
// complete. Changes of leases never wait.
//
// Promises to a follower: messages of one cursor have contiguous intervals, whole revisions, and a heartbeat comes at
// least every HeartbeatInterval. Nothing is promised about delivery: the bus may lose, repeat or delay, and the
// follower's rule (accept (prev, last] exactly if prev <= position < last) repairs it.
//
// Asked of the caller: Append is called from the apply goroutine alone, with contiguous revisions. Messages share the
// revisions' memory; nobody changes them.
package outbox
