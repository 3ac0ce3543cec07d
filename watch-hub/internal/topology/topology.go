// Package topology keeps a watch-hub known to the consensus tier, and the tier known to the hub: it announces the hub to every
// consensus node it knows of, over one Join stream each, and follows what they say of the cluster, its members and its leader.
//
// It promises that State never blocks, that Changed is closed at every change, that members are joined and left as the member
// list changes, also when none of those that were configured is left, and that a node of another cluster is refused. It asks its
// caller to run Run for as long as it is used, and to name endpoints as host:port or http://host:port.
package topology

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Waits between attempts to join a node that cannot be reached.
const (
	rejoinFirst   = 50 * time.Millisecond
	rejoinLongest = time.Second
)

// Dialer gives the connection to a consensus node at host:port. It does not wait for the node.
type Dialer func(address string) (grpc.ClientConnInterface, error)

// Config is what a Follower needs.
type Config struct {
	// Endpoints were configured, in order of preference.
	Endpoints []string
	// Announcement is who the hub is.
	Announcement *consensusv1.Announcement
	Dial         Dialer
	// Release is called when an address that was learned is no longer part of the cluster.
	Release func(address string)
	Log     *slog.Logger
}

// State is what is known of the consensus tier. It is immutable.
type State struct {
	// ClusterID is 0 until a node was heard.
	ClusterID uint64
	// Leader is the address of the leader, empty if there is none or it is not known.
	Leader string
	// Nodes are the addresses of all nodes, configured ones first, and those that are joined now. Configured addresses that no member
	// has any more are among them only while nobody is joined.
	Nodes  []string
	Joined []string
}

// Follower holds the state. Its methods may be called from any goroutine.
type Follower struct {
	config Config

	mu        sync.Mutex
	clusterID uint64
	latest    *consensusv1.Topology // of the highest term
	members   *consensusv1.Topology // of the newest member list
	joined    map[string]uint64     // member ids of the nodes that are joined now
	running   map[string]context.CancelFunc
	draining  bool
	state     *State
	changed   chan struct{}
	resync    chan struct{}
}

// New makes a Follower that knows the configured endpoints.
func New(config Config) *Follower {
	endpoints := make([]string, 0, len(config.Endpoints))
	for _, e := range config.Endpoints {
		endpoints = append(endpoints, address(e))
	}
	config.Endpoints = endpoints
	return &Follower{
		config: config, joined: map[string]uint64{}, running: map[string]context.CancelFunc{},
		state: &State{Nodes: endpoints}, changed: make(chan struct{}), resync: make(chan struct{}, 1),
	}
}

// address is the host:port of an endpoint or peer URL.
func address(endpoint string) string { return strings.TrimPrefix(endpoint, "http://") }

// State gives what is known now, and a channel that is closed when that changes.
func (f *Follower) State() (*State, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state, f.changed
}

// Drain announces that the hub takes no new work. It does not wait.
func (f *Follower) Drain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draining = true
	f.publish()
}

// Run joins and follows until the context ends.
func (f *Follower) Run(ctx context.Context) {
	var joins sync.WaitGroup
	defer joins.Wait()
	for {
		for _, left := range f.sync(ctx, &joins) {
			f.config.Log.Info("left a consensus endpoint", "endpoint", left)
			f.config.Release(left)
		}
		select {
		case <-f.resync:
		case <-ctx.Done():
			return
		}
	}
}

// sync starts and stops joins so that they are those of State.Nodes, and gives the addresses that were left.
func (f *Follower) sync(ctx context.Context, joins *sync.WaitGroup) (left []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, node := range f.state.Nodes {
		if f.running[node] == nil {
			jctx, cancel := context.WithCancel(ctx)
			f.running[node] = cancel
			joins.Go(func() { f.follow(jctx, node) })
		}
	}
	for node, cancel := range f.running {
		if !slices.Contains(f.state.Nodes, node) {
			cancel()
			delete(f.running, node)
			left = append(left, node)
		}
	}
	return left
}

// follow holds a Join stream to one node, again and again.
func (f *Follower) follow(ctx context.Context, node string) {
	wait := rejoinFirst
	for ctx.Err() == nil {
		started := time.Now()
		err := f.join(ctx, node)
		f.lost(node)
		if ctx.Err() != nil {
			return
		}
		f.config.Log.Debug("join stream ended", "endpoint", node, "error", err)
		if time.Since(started) > rejoinLongest {
			wait = rejoinFirst
		}
		sleep(ctx, wait/2+rand.N(wait/2))
		wait = min(2*wait, rejoinLongest)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (f *Follower) join(ctx context.Context, node string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := f.config.Dial(node)
	if err != nil {
		return err
	}
	stream, err := consensusv1.NewConsensusClient(conn).Join(ctx)
	if err != nil {
		return fmt.Errorf("topology: join %s: %w", node, err)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sending.Go(func() { f.announce(ctx, stream) })
	for {
		t, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("topology: join %s: %w", node, err)
		}
		if err := f.heard(node, t); err != nil {
			return err
		}
	}
}

// announce says who the hub is, and again when it begins to drain.
func (f *Follower) announce(ctx context.Context, stream consensusv1.Consensus_JoinClient) {
	for said := false; ; said = true {
		f.mu.Lock()
		draining, changed := f.draining, f.changed
		f.mu.Unlock()
		if !said || draining {
			a := f.config.Announcement
			err := stream.Send(&consensusv1.Announcement{
				Kind: a.GetKind(), Name: a.GetName(), Run: a.GetRun(), Address: a.GetAddress(), Draining: draining,
			})
			if err != nil || draining {
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (f *Follower) heard(node string, t *consensusv1.Topology) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.clusterID != 0 && t.GetClusterId() != f.clusterID {
		f.config.Log.Error("consensus endpoint refused: it is of another cluster", "endpoint", node,
			"cluster_id", fmt.Sprintf("%016x", t.GetClusterId()), "expected", fmt.Sprintf("%016x", f.clusterID))
		return fmt.Errorf("topology: %s is of cluster %x", node, t.GetClusterId())
	}
	f.clusterID = t.GetClusterId()
	f.joined[node] = t.GetMemberId()
	// A node that is cut off says old things under an old term.
	if f.latest == nil || t.GetTerm() >= f.latest.GetTerm() {
		f.latest = t
	}
	if f.newer(t) {
		f.members = t
	}
	f.publish()
	return nil
}

// newer tells whether a member list is newer than the one that is known. A node that lags, and one that has just joined above all, tells older
// lists, under the present term too. Lists of one version differ in names and addresses: there the higher term counts, and among
// equals the leader's word.
func (f *Follower) newer(t *consensusv1.Topology) bool {
	known := f.members
	switch {
	case len(t.GetMembers()) == 0:
		return false
	case known == nil || t.GetMembersVersion() != known.GetMembersVersion():
		return known == nil || t.GetMembersVersion() > known.GetMembersVersion()
	case t.GetTerm() != known.GetTerm():
		return t.GetTerm() > known.GetTerm()
	}
	return t.GetMemberId() == t.GetLeader() || known.GetMemberId() != known.GetLeader()
}

func (f *Follower) lost(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.joined, node)
	f.publish()
}

// publish makes the state anew; the caller holds the lock.
func (f *Follower) publish() {
	s := &State{ClusterID: f.clusterID}
	var learned []string
	add := func(at string) {
		switch {
		case at == "" || slices.Contains(s.Nodes, at) || slices.Contains(learned, at):
		case slices.Contains(f.config.Endpoints, at):
			s.Nodes = append(s.Nodes, at)
		default:
			learned = append(learned, at)
		}
	}
	for _, m := range f.members.GetMembers() {
		add(f.reach(m))
		if m.GetId() == f.latest.GetLeader() {
			s.Leader = f.reach(m)
		}
	}
	if f.members == nil || len(f.joined) == 0 { // nothing else is known, or what is may be out of date
		for _, endpoint := range f.config.Endpoints {
			add(endpoint)
		}
	}
	slices.SortStableFunc(s.Nodes, func(a, b string) int {
		return cmp.Compare(slices.Index(f.config.Endpoints, a), slices.Index(f.config.Endpoints, b))
	})
	s.Nodes = append(s.Nodes, learned...)
	for _, node := range s.Nodes {
		if _, ok := f.joined[node]; ok {
			s.Joined = append(s.Joined, node)
		}
	}
	f.state = s
	close(f.changed)
	f.changed = make(chan struct{})
	select {
	case f.resync <- struct{}{}:
	default:
	}
}

// reach is the address of a member: a configured one that is joined as that member or has its address, else its first.
func (f *Follower) reach(m *consensusv1.Member) string {
	for _, node := range f.config.Endpoints {
		if id, ok := f.joined[node]; ok && id == m.GetId() {
			return node
		}
	}
	for _, url := range m.GetPeerUrls() {
		if slices.Contains(f.config.Endpoints, address(url)) {
			return address(url)
		}
	}
	if len(m.GetPeerUrls()) > 0 {
		return address(m.GetPeerUrls()[0])
	}
	return ""
}
