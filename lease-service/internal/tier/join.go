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
		if err := t.heard(topology); err != nil {
			return heard, err
		}
		heard = true
	}
}

// heard takes in what a node says. Of leaders the one of the highest term counts.
func (t *Tier) heard(topology *consensusv1.Topology) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cluster != 0 && topology.GetClusterId() != t.cluster {
		return errOtherCluster
	}
	t.cluster = topology.GetClusterId()
	if topology.GetTerm() >= t.term && len(topology.GetMembers()) > 0 {
		t.follows(topology)
	}
	close(t.changed)
	t.changed = make(chan struct{})
	select {
	case t.resync <- struct{}{}:
	default:
	}
	return nil
}

// follows takes in members and leader from a node whose term is not behind; the caller holds the lock.
func (t *Tier) follows(topology *consensusv1.Topology) {
	t.addresses = t.addresses[:0:0]
	for _, endpoint := range t.config.Endpoints {
		t.addresses = append(t.addresses, address(endpoint))
	}
	news := topology.GetTerm() > t.term || topology.GetLeader() != t.leader && topology.GetLeader() != 0
	t.term = topology.GetTerm()
	for _, member := range topology.GetMembers() {
		for i, peerURL := range member.GetPeerUrls() {
			a := address(peerURL)
			if !slices.Contains(t.addresses, a) {
				t.addresses = append(t.addresses, a)
			}
			if i == 0 && news && member.GetId() == topology.GetLeader() {
				t.leader, t.preferred = member.GetId(), a
			}
		}
	}
}
