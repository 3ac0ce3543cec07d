package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// row is one comparison.
type row struct {
	name, about string
	nodes       int
	clients     int
	connections int
	prepare     func(ctx context.Context, t *target) error // before the load; nil: nothing
	load        load
	steps       steps     // beside the load; nil: once
	place       placement // of the clients
	args        []string  // flags of every node, on all systems alike
	tmpfs       bool      // the data lies in memory
	threeOnly   bool      // makes no sense with one node
	freshPeak   bool      // peaks of memory count from when the measured time begins
	starts      bool      // the load says when it has made what it needs
	floor       bool      // a bare gRPC server does the like
	oursOnly    bool      // beyond what an etcd can do
}

// oneNode ends the names of rows with one node.
const oneNode = "-one"

// rows are all there are: each with three nodes, and most with one too. Puts have the connections of etcd's published figures; the other
// rows put many clients on each, as programs do.
func rows() []row {
	puts := closedLoop(putAnyKey)
	three := []row{
		{
			name: "put-1", about: "puts of 256 bytes, one client, at the leader (split: a proxy)", clients: 1, connections: 1,
			place: atLeader, load: puts,
		},
		{
			name: "put-1-tmpfs", about: "the same, with the servers' data on a tmpfs: no disk is the limit", clients: 1, connections: 1,
			place: atLeader, tmpfs: true, load: puts,
		},
		{name: "put-100", about: "puts of 256 bytes, 100 clients", clients: 100, connections: 20, load: puts},
		{name: "put-1000", about: "puts of 256 bytes, 1000 clients", clients: 1000, connections: 100, load: puts},
		{
			name: "range-1000", about: "linearizable reads of single keys, 1000 clients", clients: 1000, connections: 20,
			prepare: fill, load: closedLoop(rangeAnyKey(false)),
		},
		{
			name: "range-serializable-1000", about: "serializable reads of single keys, 1000 clients", clients: 1000, connections: 20,
			prepare: fill, load: closedLoop(rangeAnyKey(true)),
		},
		{name: "txn-1000", about: "transactions of a compare and a put, 1000 clients", clients: 1000, connections: 20, load: closedLoop(comparePut)},
		{name: "mixed", about: "etcd's txn-mixed: puts and ranges in transactions, 1000 clients", clients: 1000, connections: 20, load: closedLoop(mixed)},
		{name: "lease-1000", about: "a grant and a revoke, 1000 clients", clients: 1000, connections: 20, load: closedLoop(grantRevoke)},
		{name: "keepalive-1000", about: "renewals, 1000 clients with a lease and a stream each", clients: 1000, connections: 20, load: keepAlives},
	}
	three = append(three, watchRows()...)
	for _, r := range []struct {
		name, about string
		load        load
	}{
		{"put-history", "puts of 256 bytes, 20 clients, over 50,000 revisions", puts},
		{"put-compact", "the same, while everything is compacted again and again", beside(puts, compactAll)},
		{"put-defragment", "the same, while each node is defragmented again and again", beside(puts, defragmentAll)},
		{"put-snapshot", "the same, while one endpoint after the other streams a snapshot to an operator", beside(puts, saveAll)},
	} {
		three = append(three, row{name: r.name, about: r.about, clients: 20, connections: 20, prepare: history, load: r.load})
	}
	three = append(three, millionRows()...)
	three = append(three,
		row{
			name: "put-catchup", clients: 100, connections: 20, prepare: history, load: puts, steps: catchUp,
			about: "puts of 256 bytes, 100 clients, over 50,000 revisions, while a follower that was killed gets a snapshot: " +
				"from its start until it is level; no client uses it, all logs are short",
			place: besideAMember, args: shortLogs(), threeOnly: true,
		},
		row{
			name: "failover", clients: 1, connections: len(nodeNames()), load: retrying, steps: failovers, threeOnly: true,
			about: "one client that writes and tries again without pause, while the leader is killed some times: " +
				"gap_ms is the longest time between two acknowledged writes",
		})
	three = append(three, leaseRows()...)
	all := make([]row, 0, 2*len(three))
	for _, r := range three {
		r.nodes = 3
		all = append(all, r)
	}
	for _, r := range three {
		if r.threeOnly {
			continue
		}
		r.name, r.about, r.nodes = r.name+oneNode, r.about+"; one node", 1
		all = append(all, r)
	}
	return all
}

// chooseRows are the rows whose name matches.
func chooseRows(name *regexp.Regexp) []row {
	return slices.DeleteFunc(rows(), func(r row) bool { return !name.MatchString(r.name) })
}

// systems are those of the named that can have as many nodes as the row, in the order of systemNames.
func (r row) systems(named []string) []string {
	names := systemNames()
	if r.floor {
		names = append(names, floor)
	}
	return slices.DeleteFunc(names, func(name string) bool {
		sys, err := systemNamed(name)
		return err != nil || r.oursOnly && name == etcd || !slices.Contains(named, name) || !slices.Contains(sys.nodes, r.nodes) ||
			strings.HasSuffix(r.name, oneNode) != (r.nodes == 1)
	})
}
