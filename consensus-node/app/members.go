package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/grpcclient"
)

// changed is called by apply when the members or the lease view changed.
func (n *Node) changed() {
	n.registry.Changed()
	select {
	case n.members <- struct{}{}:
	default:
	}
}

// runMembers keeps the transport's peers as the member list says, sees to it that the list says this node's name and client URLs, and
// ends the process when this node was removed.
func (n *Node) runMembers(ctx context.Context) error {
	const retry = 100 * time.Millisecond
	ticker := time.NewTicker(retry)
	defer ticker.Stop()
	for {
		if err := n.followMembers(); err != nil { //nolint:contextcheck // a peer lives as long as the transport
			n.linger(ctx)
			return err
		}
		// Again at each change: what the log replays may be older than what the database said at the start.
		recorded := n.recordSelf(ctx)
		tick := ticker.C
		if recorded {
			tick = nil
		}
		select {
		case <-n.members:
		case <-n.gone:
			return n.errRemoved()
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}

// linger waits before this member ends for having been removed, for as long as an election takes: what it still has to say leaves, to the
// others that the entry is committed and to the client that it is removed.
func (n *Node) linger(ctx context.Context) {
	timer := time.NewTimer(time.Duration(n.cfg.ElectionMs) * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// followMembers makes the transport's peers those of the member list, and whoever sends messages without being in it yet; before the first
// entry those that the node started with. The error is that this member was removed.
func (n *Node) followMembers() error {
	view, err := n.machine.Current()
	if err != nil {
		return err
	}
	list := view.Members
	view.Release()
	if list.IsRemoved(n.memberID) {
		return n.errRemoved()
	}
	members := list.Members()
	if len(members) == 0 {
		members = n.disk.first
	}
	peers := map[uint64][]string{}
	for i, m := range members {
		if m.ID == n.memberID {
			n.disk.store.SetTurn(i, len(members)) // a quorum never waits for commits of all
		}
		peers[m.ID] = m.PeerURLs
	}
	n.hints.complete(peers, list)
	delete(peers, n.memberID)
	for id, urls := range peers {
		if err := n.transport.AddPeer(id, urls); err != nil && !slices.Equal(urls, n.peers[id]) {
			n.log.Warn("a member cannot be reached: change its peer URLs", "member", fmt.Sprintf("%x", id), "error", err)
		}
	}
	for id := range n.peers {
		if _, stays := peers[id]; !stays {
			n.transport.RemovePeer(id)
			n.peerServer.Evict(id)
		}
	}
	n.peers = peers
	return nil
}

func (n *Node) errRemoved() error { return errRemoved(n.memberID, n.cfg.DataDir) }

func errRemoved(id uint64, dataDir string) error {
	return failure.New(failure.Removed, fmt.Sprintf(
		"member %x was removed from the cluster: remove its data directory %s, and add it again under a new id if it is to come back",
		id, dataDir))
}

// removed is told by another member that this one is no longer of the cluster. This one may never see the entry that says so.
func (n *Node) removed() {
	select {
	case n.gone <- struct{}{}:
	default:
	}
}

// isRemoved tells whether a member was removed for good.
func (n *Node) isRemoved(id uint64) bool {
	view, err := n.machine.Current()
	if err != nil {
		return false
	}
	defer view.Release()
	return view.Members.IsRemoved(id)
}

// Listed tells whether the member list says this node's name and client URLs, as far as this node has applied it.
func (n *Node) Listed() bool {
	view, err := n.machine.Current()
	if err != nil {
		return false
	}
	defer view.Release()
	self, ok := view.Members.Get(n.memberID)
	return ok && self.Name == n.cfg.Name && slices.Equal(self.ClientURLs, n.cfg.AdvertiseClientURLs.Strings())
}

// recordSelf makes the member list say this node's name and client URLs; true once it does.
func (n *Node) recordSelf(ctx context.Context) bool {
	if n.Listed() {
		return true
	}
	view, err := n.machine.Current()
	if err != nil {
		return false
	}
	leader, _ := view.Members.Get(n.raft.Status().Leader)
	view.Release()
	urls := n.cfg.AdvertiseClientURLs.Strings()
	const patience = 2 * time.Second
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	me := &consensusv1.Member{Id: n.memberID, Name: n.cfg.Name, ClientUrls: urls}
	if leader.ID == n.memberID {
		_, err = n.server.SetMember(bounded, me)
	} else {
		err = tellLeader(bounded, leader, me)
	}
	if err != nil {
		n.log.Debug("this member's name and client URLs are not recorded yet", "error", err)
	}
	return false // the next look at the list decides
}

// tellLeader asks the leader to record what this member says of itself.
func tellLeader(ctx context.Context, leader member.Member, me *consensusv1.Member) error {
	return ask(leader.PeerURLs, func(client consensusv1.ConsensusClient) error {
		_, err := client.SetMember(ctx, me)
		return err
	})
}

// forward carries a call to the member that leads.
func (n *Node) forward(ctx context.Context, leader uint64, call *consensusv1.Call) (answer *consensusv1.Answer, err error) {
	view, err := n.machine.Current()
	if err != nil {
		return nil, err
	}
	m, _ := view.Members.Get(leader)
	view.Release()
	err = ask(m.PeerURLs, func(client consensusv1.ConsensusClient) error {
		answer, err = client.Single(ctx, call)
		return err
	})
	return answer, err
}

// ask makes a connection to another member for one question.
func ask(peerURLs []string, question func(consensusv1.ConsensusClient) error) error {
	endpoints, err := hostPorts(peerURLs)
	if err != nil {
		return err
	}
	if len(endpoints) == 0 {
		return errors.New("the member to ask is not known")
	}
	conn, err := grpcclient.Dial(grpcclient.Config{}, endpoints...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return question(consensusv1.NewConsensusClient(conn))
}
