package routing

import (
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Table is where everything is, at one moment. It is immutable.
type Table struct {
	// ClusterID is 0 until a node was heard.
	ClusterID uint64
	// Leader is 0 if no leader is known under the highest term.
	Leader, Term uint64
	// Own is the endpoint of the node in whose process the proxy runs; empty for a proxy that is a process of its own.
	Own string
	// Nodes in order of preference: as configured, then by member id.
	Nodes []Node
	// Hubs that take watches, by name.
	Hubs []Hub
	// View of the lease-services with the highest epoch; nil until one was heard.
	View *feedv1.View
}

// Node is one member of the consensus tier.
type Node struct {
	ID uint64
	// Endpoint is the host:port of its peer URL.
	Endpoint string
	Learner  bool
	// Up tells whether it answers now.
	Up bool
}

// Hub is one announced watch-hub. Run changes at each start of its process.
type Hub struct {
	Name    string
	Run     uint64
	Address string
}

// Class says where a call may go and whether it may be sent again.
type Class uint8

// The classes.
const (
	// Write goes to the leader and is sent again only if it was certainly not proposed.
	Write Class = iota
	// Linearizable is a read at the leader, or at the proxy's own node, which asks the leader how far it must be; it changes nothing
	// and may always be sent again.
	Linearizable
	// Serializable is a read that any member but a learner answers.
	Serializable
	// Member asks the proxy's own node about itself, and it alone.
	Member
)

// Route tells the endpoint for a call, or false if there is none now. hint, if it is a reachable member, goes before the
// table's leader: a node that just refused knows better. avoid is an endpoint that just failed a serializable read; it is
// taken if there is no other.
func (t *Table) Route(class Class, hint uint64, avoid string) (string, bool) {
	switch class {
	case Serializable:
		return t.any(avoid)
	case Member:
		return t.Own, t.Own != ""
	case Linearizable:
		if t.Own != avoid && t.ownVotes() {
			return t.Own, true
		}
	case Write:
	}
	if endpoint, ok := t.member(hint); ok {
		return endpoint, true
	}
	return t.member(t.Leader)
}

// Endpoints are those that may answer a read of the class, in order of preference.
func (t *Table) Endpoints(class Class) []string {
	if class != Serializable {
		if endpoint, ok := t.Route(class, 0, ""); ok {
			return []string{endpoint}
		}
		return nil
	}
	var endpoints []string
	for _, node := range t.Nodes {
		if node.Up && !node.Learner {
			endpoints = append(endpoints, node.Endpoint)
		}
	}
	return endpoints
}

// Spare are the endpoints for work that any voting member can do and the leader should be spared: the others in order of
// preference, and the leader last.
func (t *Table) Spare() []string {
	endpoints := t.Endpoints(Serializable)
	leader, ok := t.member(t.Leader)
	if i := slices.Index(endpoints, leader); ok && i >= 0 {
		endpoints = append(slices.Delete(endpoints, i, i+1), leader)
	}
	return endpoints
}

// Serves tells whether a call that went to the endpoint may still be answered from there: whether the node is reachable
// and, but for serializable reads and for what its own node is asked, leads or may lead.
func (t *Table) Serves(class Class, endpoint string) bool {
	for _, node := range t.Nodes {
		if node.Endpoint == endpoint {
			return node.Up && (class == Serializable || t.Leader == 0 || t.Leader == node.ID || endpoint == t.Own && class != Write)
		}
	}
	return class == Member && endpoint == t.Own
}

// ownVotes tells whether the proxy's own node answers linearizable reads: a learner does not.
func (t *Table) ownVotes() bool {
	return t.Own != "" && t.Leader != 0 && slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.Endpoint == t.Own && n.Up && !n.Learner })
}

// HasLeader tells whether some reachable node knows a leader.
func (t *Table) HasLeader() bool { return t.Leader != 0 }

func (t *Table) member(id uint64) (string, bool) {
	if id == 0 {
		return "", false
	}
	for _, node := range t.Nodes {
		if node.ID == id && node.Up {
			return node.Endpoint, true
		}
	}
	return "", false
}

func (t *Table) any(avoid string) (string, bool) {
	second, ok := "", false
	for _, node := range t.Nodes {
		switch {
		case !node.Up || node.Learner:
		case node.Endpoint == avoid:
			second, ok = node.Endpoint, true
		default:
			return node.Endpoint, true
		}
	}
	return second, ok
}
