package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// errOtherCluster refuses a node of another cluster than the one first heard of.
var errOtherCluster = errors.New("tier: the node belongs to another cluster")

// Run joins all nodes and follows what they say until the context ends.
func (t *Tier) Run(ctx context.Context) error {
	var joins sync.WaitGroup
	defer joins.Wait()
	for {
		t.join(ctx, &joins)
		select {
		case <-t.resync:
		case <-ctx.Done():
			return nil
		}
	}
}

// join makes the joined nodes those that are known.
func (t *Tier) join(ctx context.Context, joins *sync.WaitGroup) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, address := range t.addresses {
		if _, ok := t.joined[address]; ok {
			continue
		}
		following, cancel := context.WithCancel(ctx)
		t.joined[address] = cancel
		joins.Go(func() { t.follow(following, address) })
	}
	for address, cancel := range t.joined {
		if !slices.Contains(t.addresses, address) {
			cancel()
			delete(t.joined, address)
			if conn, ok := t.conns[address]; ok {
				delete(t.conns, address)
				_ = conn.Close() // it left the cluster: nothing is left to lose on it
			}
		}
	}
}

// follow holds a Join stream to one node, again and again.
func (t *Tier) follow(ctx context.Context, address string) {
	wait := rejoinFirst
	for ctx.Err() == nil {
		heard, err := t.listen(ctx, address)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errOtherCluster) {
			t.config.Logger.Error("consensus node refused", "address", address, "error", err)
		} else {
			t.config.Logger.Debug("join stream ended", "address", address, "error", err)
		}
		if heard {
			wait = rejoinFirst
		}
		t.pause(ctx, wait)
		wait = min(2*wait, rejoinMost)
	}
}

func (t *Tier) pause(ctx context.Context, d time.Duration) {
	timer := t.config.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}

// listen reads one Join stream to its end and tells whether anything was heard on it.
func (t *Tier) listen(ctx context.Context, address string) (heard bool, err error) {
	t.mu.Lock()
	conn, err := t.conn(address)
	t.mu.Unlock()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := consensusv1.NewConsensusClient(conn).Join(ctx)
	if err != nil {
		return false, fmt.Errorf("tier: join %s: %w", address, err)
	}
	if err := stream.Send(proto.CloneOf(t.config.Announcement)); err != nil {
		return false, fmt.Errorf("tier: join %s: %w", address, err)
	}
	for {
		topology, err := stream.Recv()
		if err != nil {
			return heard, fmt.Errorf("tier: join %s: %w", address, err)
		}
		if err := t.heard(address, topology); err != nil {
			return heard, err
		}
		if !heard {
			heard = true
			defer t.lost(address)
		}
	}
}

// lost tells that a Join stream has ended.
func (t *Tier) lost(address string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.live, address)
	t.settle()
	t.tell()
}

// heard takes in what a node says. Of leaders the one of the highest term counts.
func (t *Tier) heard(address string, topology *consensusv1.Topology) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cluster != 0 && topology.GetClusterId() != t.cluster {
		return errOtherCluster
	}
	t.cluster = topology.GetClusterId()
	t.live[address] = topology.GetMemberId()
	if t.newer(topology) {
		t.members = topology
	}
	t.settle()
	if topology.GetTerm() >= t.term && len(topology.GetMembers()) > 0 {
		t.follows(topology)
	}
	t.tell()
	return nil
}

// tell wakes those who wait for a change; the caller holds the lock.
func (t *Tier) tell() {
	close(t.changed)
	t.changed = make(chan struct{})
	select {
	case t.resync <- struct{}{}:
	default:
	}
}

// newer tells whether a member list is newer than the one that is known; the caller holds the lock. A node that lags, and one that has just
// joined above all, tells older lists, under the present term too. Lists of one version differ in names and addresses: there
// the higher term counts, and among equals the leader's word.
func (t *Tier) newer(topology *consensusv1.Topology) bool {
	known := t.members
	switch {
	case len(topology.GetMembers()) == 0:
		return false
	case known == nil || topology.GetMembersVersion() != known.GetMembersVersion():
		return known == nil || topology.GetMembersVersion() > known.GetMembersVersion()
	case topology.GetTerm() != known.GetTerm():
		return topology.GetTerm() > known.GetTerm()
	}
	return topology.GetMemberId() == topology.GetLeader() || known.GetMemberId() != known.GetLeader()
}

// settle makes the addresses those of the members, and of the configuration those that a member has, or all while no stream lives: then
// the list may be out of date. The caller holds the lock.
func (t *Tier) settle() {
	var configured, learned []string
	for _, endpoint := range t.config.Endpoints {
		configured = append(configured, address(endpoint))
	}
	t.addresses = slices.DeleteFunc(configured, func(at string) bool { return t.members != nil && len(t.live) > 0 && !t.isMembers(at) })
	for _, member := range t.members.GetMembers() {
		for _, at := range t.reach(member) {
			if !slices.Contains(t.addresses, at) && !slices.Contains(learned, at) {
				learned = append(learned, at)
			}
		}
	}
	t.addresses = append(t.addresses, learned...)
	if !slices.Contains(t.addresses, t.preferred) {
		t.next()
	}
}

// reach gives the addresses of a member: the one under which it is joined where that is configured, else all that it has.
func (t *Tier) reach(member *consensusv1.Member) []string {
	for _, endpoint := range t.config.Endpoints {
		if id, ok := t.live[address(endpoint)]; ok && id == member.GetId() {
			return []string{address(endpoint)}
		}
	}
	var addresses []string
	for _, peerURL := range member.GetPeerUrls() {
		addresses = append(addresses, address(peerURL))
	}
	return addresses
}

// isMembers tells whether an address is one of a member's.
func (t *Tier) isMembers(at string) bool {
	return slices.ContainsFunc(t.members.GetMembers(), func(m *consensusv1.Member) bool { return slices.Contains(t.reach(m), at) })
}

// follows takes in the leader from a node whose term is not behind; the caller holds the lock.
func (t *Tier) follows(topology *consensusv1.Topology) {
	news := topology.GetTerm() > t.term || topology.GetLeader() != t.leader && topology.GetLeader() != 0
	t.term = topology.GetTerm()
	for _, member := range t.members.GetMembers() {
		if at := t.reach(member); news && member.GetId() == topology.GetLeader() && len(at) > 0 {
			t.leader, t.preferred = member.GetId(), at[0]
			for asking := range t.asked {
				if asking.address != t.preferred {
					asking.cancel()
				}
			}
		}
	}
}
