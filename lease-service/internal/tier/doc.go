// Package tier is the way to the consensus tier: it announces the instance to every node that it knows of, follows what they
// say of members and leader, and gives the node to ask.
//
// It promises that Node never blocks, that it names the leader as soon as any node has told who that is, and that after Blame it
// names another node, so that a caller that tries again finds the leader even if every hint is stale. A call under Ask does not
// wait at a node that stands still for longer than it takes to hear of its successor. A node of another cluster than the first
// one heard of is never asked. It asks its caller to run Run, and to call Close when nobody uses a node any more.
package tier
