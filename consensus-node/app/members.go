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
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
}

// followMembers makes the transport's peers those of the member list; before the first entry those of --initial-cluster.
func (n *Node) followMembers() error {
	view, err := n.machine.Current()
	if err != nil {
		return err
	}
	list := view.Members
	view.Release()
	members := list.Members()
	if len(members) == 0 {
		if members, err = n.cfg.firstMembers(); err != nil {
			return err
		}
	}
	if list.IsRemoved(n.memberID) {
		return n.errRemoved()
	}
	peers := map[uint64][]string{}
	for _, m := range members {
		if m.ID == n.memberID {
			continue
		}
		peers[m.ID] = m.PeerURLs
		if err := n.transport.AddPeer(m.ID, m.PeerURLs); err != nil {
			return fmt.Errorf("member %x cannot be reached: %w", m.ID, err)
		}
	}
	for id := range n.peers {
		if _, stays := peers[id]; !stays {
			n.transport.RemovePeer(id)
		}
	}
	n.peers = peers
	return nil
}

func (n *Node) errRemoved() error {
	return failure.New(failure.Removed, fmt.Sprintf(
		"member %x was removed from the cluster: remove its data directory %s, and add it again under a new id if it is to come back",
		n.memberID, n.cfg.DataDir))
}

// removed is told by another member that this one is no longer of the cluster. This one may never see the entry that says so.
func (n *Node) removed() { n.fail(n.errRemoved()) }

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
	endpoints, err := hostPorts(leader.PeerURLs)
	if err != nil {
		return err
	}
	if len(endpoints) == 0 {
		return errors.New("no leader to tell")
	}
	conn, err := grpcclient.Dial(grpcclient.Config{}, endpoints...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = consensusv1.NewConsensusClient(conn).SetMember(ctx, me)
	return err
}
