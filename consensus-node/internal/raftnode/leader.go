package raftnode

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// transfer waits for leadership to move.
type transfer struct {
	done chan error // buffered
}

// TransferLeader hands leadership from this node to member to, and returns once this node knows that it no longer leads.
// Errors: [*NotLeaderError], [ErrTransferFailed] after one election timeout, the context's. Proposals are dropped meanwhile.
func (n *Node) TransferLeader(ctx context.Context, to uint64) error {
	t := &transfer{done: make(chan error, 1)}
	err := n.do(ctx, func() { n.startTransfer(t, to) })
	if err != nil {
		return err
	}
	select {
	case err := <-t.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
}

func (n *Node) startTransfer(t *transfer, to uint64) {
	l := &n.loop
	switch {
	case n.raw.BasicStatus().RaftState != raft.StateLeader:
		t.done <- &NotLeaderError{Leader: l.leader}
	case to == n.cfg.ID:
		t.done <- nil
	case !slices.Contains(l.voters, to):
		t.done <- fmt.Errorf("raft: member %x does not vote here", to)
	default:
		n.raw.TransferLeader(to)
		l.transfers = append(l.transfers, t)
	}
}

// HandOver gives leadership to the active voter whose log is longest, if this node leads and there is one. It is for the time before Run is
// ended, so that the others need no election timeout. It returns nil if there is nothing to hand over.
//
// Once per election timeout raft counts who was heard of and begins anew: for a heartbeat nobody is active. So it looks a few times.
func (n *Node) HandOver(ctx context.Context) error {
	const looks = 4
	for look := 1; ; look++ {
		to, others := uint64(0), false
		err := n.do(ctx, func() { to, others = n.successor() })
		switch {
		case err != nil:
			return err
		case to != 0:
			return n.TransferLeader(ctx, to)
		case !others || look == looks:
			return nil
		}
		select {
		case <-time.After(n.cfg.Tick):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// successor is the active voter whose log is longest, or 0; others tells whether there is any that may become one. A node that does not lead has none.
func (n *Node) successor() (to uint64, others bool) {
	if n.raw.BasicStatus().RaftState != raft.StateLeader {
		return 0, false
	}
	match := uint64(0)
	for id, p := range n.peers() {
		if id == n.cfg.ID || p.Learner {
			continue
		}
		others = true
		if p.Active && p.State == tracker.StateReplicate && p.Match > match {
			to, match = id, p.Match
		}
	}
	return to, others
}

// tickTransfers ends the transfers whose outcome is known: raft gives one up after an election timeout.
func (n *Node) tickTransfers() {
	if len(n.loop.transfers) == 0 {
		return
	}
	n.settleTransfers()
}

func (n *Node) settleTransfers() {
	st := n.raw.BasicStatus()
	var outcome error
	switch {
	case st.RaftState != raft.StateLeader:
	case st.LeadTransferee == 0:
		outcome = ErrTransferFailed
	default:
		return
	}
	for _, t := range n.loop.transfers {
		t.done <- outcome
	}
	n.loop.transfers = nil
}
