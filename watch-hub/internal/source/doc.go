// Package source brings a hub the changes: from the bus where it speaks, from a consensus node's stream where it does not, and
// from the nodes' history what was missed.
//
// It promises that loss of the bus costs latency alone: after three heartbeats of silence, or at once when the bus says that
// the connection is gone, it follows a node directly, the leader first. It leaves a source for its lag too: once a second it
// asks the leader where it stands, and a source that has not come that far by the next time is replaced. What a source says is
// passed on as it comes; the receiver drops what it has and sees what it misses.
package source
