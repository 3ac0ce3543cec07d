package raftnode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Position is where a proposal stands in the log of the leader that took it. An entry of another term that is applied at Index says that the
// proposal is lost for good.
type Position struct{ Index, Term uint64 }

// proposal is one entry on its way to the loop.
type proposal struct {
	entry  *raftpb.Entry
	answer chan proposalAnswer // buffered
	// claimed is set once, by the loop before it proposes or by a caller that leaves before that.
	claimed atomic.Bool
}

type proposalAnswer struct {
	pos Position
	err error
}

func newProposal(e *raftpb.Entry) *proposal {
	return &proposal{entry: e, answer: make(chan proposalAnswer, 1)}
}

// Propose hands data, which must not be empty nor change afterwards, to raft as one entry. With nil the entry is in this leader's log: its
// outcome comes through the Applier, and may never come if leadership is lost. Any error means that it was certainly not proposed:
// [*NotLeaderError], one that is [ErrDropped], [ErrStopped], or the context's if it ended before raft saw the proposal.
func (n *Node) Propose(ctx context.Context, data []byte) (Position, error) {
	e, err := normalEntry(data)
	if err != nil {
		return Position{}, err
	}
	return n.proposeEntry(ctx, e)
}

func normalEntry(data []byte) (*raftpb.Entry, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: an empty entry", ErrDropped)
	}
	return &raftpb.Entry{Data: data}, nil
}

// ProposeConfChange proposes a membership change; what Propose says holds for it. One that comes before an earlier one was applied is
// refused with [ErrConfChangeRefused].
func (n *Node) ProposeConfChange(ctx context.Context, cc raftpb.ConfChangeI) (Position, error) {
	e, err := confChangeEntry(cc)
	if err != nil {
		return Position{}, err
	}
	return n.proposeEntry(ctx, e)
}

func confChangeEntry(cc raftpb.ConfChangeI) (*raftpb.Entry, error) {
	typ, data, err := raftpb.MarshalConfChange(cc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDropped, err)
	}
	return &raftpb.Entry{Type: typ.Enum(), Data: data}, nil
}

func (n *Node) proposeEntry(ctx context.Context, e *raftpb.Entry) (Position, error) {
	p := newProposal(e)
	select {
	case n.proposals <- p:
	case <-ctx.Done():
		return Position{}, fmt.Errorf("raft: not proposed: %w", ctx.Err())
	case <-n.done:
		return Position{}, ErrStopped
	}
	select {
	case a := <-p.answer:
		return a.pos, a.err
	case <-ctx.Done():
		if p.claimed.CompareAndSwap(false, true) { // raft has not seen it and will not: the loop waits for a busy disk
			return Position{}, fmt.Errorf("raft: not proposed: %w", ctx.Err())
		}
	}
	// The loop has claimed it, and answers at once; leaving now would leave the outcome unknown.
	a := <-p.answer
	return a.pos, a.err
}

// claim drops the proposals whose callers have left, and makes the others the loop's.
func claim(batch []*proposal) []*proposal {
	return slices.DeleteFunc(batch, func(p *proposal) bool { return !p.claimed.CompareAndSwap(false, true) })
}

// propose hands the gathered proposals to raft, as one message where it takes them so. It waits while raft has work to hand out:
// only then is the index of the next entry known.
func (n *Node) propose() {
	if len(n.loop.batch) == 0 || n.storageBusy() || n.raw.HasReady() {
		return
	}
	if n.loop.state != raft.StateLeader {
		n.refuseBatch(&NotLeaderError{Leader: n.loop.leader})
		return
	}
	n.loop.batch = claim(n.loop.batch)
	batch := n.loop.batch
	for len(batch) > 0 {
		k := together(batch)
		if err := n.stepProposals(batch[:k]); err != nil {
			for _, p := range batch[:k] { // each alone: one that is too large must not refuse the others
				if err := n.stepProposals([]*proposal{p}); err != nil {
					p.answer <- proposalAnswer{err: n.refusal(err)}
				}
			}
		}
		batch = batch[k:]
	}
	clear(n.loop.batch)
	n.loop.batch = n.loop.batch[:0]
	n.flush()
}

// together counts the proposals that go into one message: plain ones up to a message's size, or one membership change.
func together(batch []*proposal) int {
	size := 0
	for i, p := range batch {
		size += len(p.entry.GetData())
		if i > 0 && (size > messageBytesMax || p.entry.GetType() != raftpb.EntryNormal) {
			return i
		}
		if p.entry.GetType() != raftpb.EntryNormal {
			return 1
		}
	}
	return len(batch)
}

// stepProposals proposes and, if raft took them, answers.
func (n *Node) stepProposals(batch []*proposal) error {
	entries := make([]*raftpb.Entry, len(batch))
	for i, p := range batch {
		entries[i] = p.entry
	}
	// MsgProp bears no term, so raft takes it for this node's own, whatever the term is.
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &n.cfg.ID, Entries: entries}
	if err := n.raw.Step(m); err != nil {
		return err
	}
	l := &n.loop
	for i, p := range batch {
		l.lastIndex++
		a := proposalAnswer{pos: Position{Index: l.lastIndex, Term: l.term}}
		if entries[i] != p.entry { // raft puts an empty entry in the place of a change that it refuses
			a = proposalAnswer{err: ErrConfChangeRefused}
		}
		p.answer <- a
	}
	return nil
}

// refusal says why a leader's raft dropped a proposal.
func (n *Node) refusal(err error) error {
	switch {
	case !errors.Is(err, raft.ErrProposalDropped):
		return fmt.Errorf("%w: %w", ErrDropped, err)
	case n.raw.BasicStatus().LeadTransferee != 0:
		return ErrTransferring
	case len(n.loop.voters) > 0 && !n.votes():
		return fmt.Errorf("%w: this member was removed", ErrDropped)
	}
	return ErrTooManyUncommitted
}

func (n *Node) refuseBatch(err error) {
	for _, p := range n.loop.batch {
		p.answer <- proposalAnswer{err: err}
	}
	clear(n.loop.batch)
	n.loop.batch = n.loop.batch[:0]
}
