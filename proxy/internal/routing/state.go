package routing

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// OtherClusterError says that an endpoint belongs to another cluster than the one first heard of.
type OtherClusterError struct {
	Endpoint  string
	Got, Want uint64
}

// Error names both clusters, in the form of bus subjects and etcdctl.
func (e *OtherClusterError) Error() string {
	return fmt.Sprintf("routing: %s belongs to cluster %016x, this proxy serves cluster %016x: mend --consensus-endpoints",
		e.Endpoint, e.Got, e.Want)
}

// State gathers what each node says. It is not safe for use from several goroutines; the Tables it gives are immutable.
type State struct {
	// Own is the endpoint of the node in whose process the proxy runs, if any; set before the first Table.
	Own string

	initial   []string
	clusterID uint64
	heard     map[string]*consensusv1.Topology
	// members is the newest member list, kept while no node is reachable.
	members        []*consensusv1.Member
	membersTerm    uint64
	membersVersion uint64
	// term is the highest that anybody ever spoke of.
	term uint64
	view *feedv1.View
}

// NewState starts from the configured endpoints, in order of preference for serializable reads.
func NewState(endpoints []string) *State {
	initial := make([]string, 0, len(endpoints))
	for _, endpoint := range endpoints {
		if endpoint = Address(endpoint); endpoint != "" && !slices.Contains(initial, endpoint) {
			initial = append(initial, endpoint)
		}
	}
	return &State{initial: initial, heard: map[string]*consensusv1.Topology{}}
}

// Address is the host:port of a peer URL: what identifies an endpoint here.
func Address(url string) string {
	url = strings.TrimSpace(url)
	if i := strings.Index(url, "://"); i >= 0 {
		url = url[i+3:]
	}
	return strings.TrimSuffix(url, "/")
}

// Heard takes in what the node behind the endpoint says. It fails with *OtherClusterError, and changes nothing, if that
// is a node of another cluster.
func (s *State) Heard(endpoint string, topology *consensusv1.Topology) error {
	if s.clusterID != 0 && topology.GetClusterId() != s.clusterID {
		return &OtherClusterError{Endpoint: endpoint, Got: topology.GetClusterId(), Want: s.clusterID}
	}
	s.clusterID = topology.GetClusterId()
	s.heard[endpoint] = topology
	s.term = max(s.term, topology.GetTerm())
	if s.newer(topology) {
		s.members, s.membersVersion = topology.GetMembers(), topology.GetMembersVersion()
		s.membersTerm = max(s.membersTerm, topology.GetTerm())
	}
	s.Viewed(topology.GetView())
	return nil
}

// newer tells whether the member list is newer than the one that is known. A node that lags, and one that has just joined above all, tells
// older lists, under the present term too. Lists of one version differ in names and addresses: there the higher term counts, and among
// equals the leader's word.
func (s *State) newer(topology *consensusv1.Topology) bool {
	if version := topology.GetMembersVersion(); version != s.membersVersion || len(topology.GetMembers()) == 0 {
		return version > s.membersVersion && len(topology.GetMembers()) > 0
	}
	newest := topology.GetTerm() > s.membersTerm || len(s.members) == 0
	speaksAsLeader := topology.GetTerm() == s.membersTerm && topology.GetLeader() == topology.GetMemberId()
	return newest || speaksAsLeader || !s.leaderHeard()
}

// Viewed takes in a lease view that was heard elsewhere; older epochs change nothing.
func (s *State) Viewed(view *feedv1.View) {
	if view != nil && (s.view == nil || view.GetEpoch() > s.view.GetEpoch()) {
		s.view = view
	}
}

// Lost takes in that an endpoint cannot be reached now.
func (s *State) Lost(endpoint string) { delete(s.heard, endpoint) }

// leaderHeard tells whether the leader itself is among those heard, so that its member list decides.
func (s *State) leaderHeard() bool {
	leader := s.leader()
	for _, topology := range s.heard {
		if leader != 0 && topology.GetMemberId() == leader {
			return true
		}
	}
	return false
}

// leader is the leader under the highest term heard of. Whoever leads under an older one has been deposed.
func (s *State) leader() uint64 {
	for _, topology := range s.heard {
		if topology.GetTerm() == s.term && topology.GetLeader() != 0 {
			return topology.GetLeader()
		}
	}
	return 0
}

// Endpoints are the addresses to join: those of the members, and the configured ones until a member list is known: a node that
// joins, and every node of a new cluster, tells none at first. The configured ones stay as long as no member is reachable, in case
// the list is out of date.
func (s *State) Endpoints() []string {
	var endpoints []string
	add := func(endpoint string) {
		if endpoint != "" && !slices.Contains(endpoints, endpoint) {
			endpoints = append(endpoints, endpoint)
		}
	}
	if len(s.heard) == 0 || len(s.members) == 0 {
		for _, endpoint := range s.initial {
			add(endpoint)
		}
	}
	for _, member := range s.members {
		add(s.endpointOf(member))
	}
	return endpoints
}

// endpointOf prefers an address under which the member is known already, or was configured, to the first of its list.
func (s *State) endpointOf(member *consensusv1.Member) string {
	// The first of all by name, should one member be known under two addresses.
	for _, endpoint := range slices.Sorted(maps.Keys(s.heard)) {
		if s.heard[endpoint].GetMemberId() == member.GetId() {
			return endpoint
		}
	}
	for _, url := range member.GetPeerUrls() {
		if slices.Contains(s.initial, Address(url)) {
			return Address(url)
		}
	}
	if len(member.GetPeerUrls()) == 0 {
		return ""
	}
	return Address(member.GetPeerUrls()[0])
}

// Table makes the table of this moment.
func (s *State) Table() *Table {
	t := &Table{Own: s.Own, ClusterID: s.clusterID, Leader: s.leader(), Term: s.term, View: s.view}
	for _, member := range s.members {
		node := Node{ID: member.GetId(), Endpoint: s.endpointOf(member), Learner: member.GetLearner()}
		_, node.Up = s.heard[node.Endpoint]
		t.Nodes = append(t.Nodes, node)
	}
	rank := func(n Node) int {
		if i := slices.Index(s.initial, n.Endpoint); i >= 0 {
			return i
		}
		return len(s.initial)
	}
	slices.SortStableFunc(t.Nodes, func(a, b Node) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	})
	t.Hubs = s.hubs()
	return t
}

// hubs are those that any node announces; a name announced in several runs counts with the highest run, and one that
// drains by any word of that run does not count.
func (s *State) hubs() []Hub {
	newest := map[string]*consensusv1.Announcement{}
	for _, topology := range s.heard {
		for _, service := range topology.GetServices() {
			if service.GetKind() != consensusv1.ServiceKind_SERVICE_KIND_WATCH_HUB || service.GetAddress() == "" {
				continue
			}
			have := newest[service.GetName()]
			if have == nil || service.GetRun() > have.GetRun() ||
				service.GetRun() == have.GetRun() && service.GetDraining() {
				newest[service.GetName()] = service
			}
		}
	}
	var hubs []Hub
	for name, service := range newest {
		if !service.GetDraining() {
			hubs = append(hubs, Hub{Name: name, Run: service.GetRun(), Address: service.GetAddress()})
		}
	}
	slices.SortFunc(hubs, func(a, b Hub) int { return cmp.Compare(a.Name, b.Name) })
	return hubs
}
