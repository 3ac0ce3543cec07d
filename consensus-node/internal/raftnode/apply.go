package raftnode

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// applyWork is a MsgStorageApply, or a snapshot to put in the place of the state.
type applyWork struct {
	msg     *raftpb.Message
	install *installWork
}

type installWork struct {
	meta *raftpb.SnapshotMetadata
	path string
	done chan struct{}

	began time.Time
}

// runApply feeds the state machine until the node ends.
func (n *Node) runApply() error {
	for {
		select {
		case <-n.ctx.Done():
			return nil
		case w := <-n.applyQ:
			if err := n.apply(w); err != nil {
				return err
			}
		}
	}
}

// apply does one piece of work.
func (n *Node) apply(w applyWork) error {
	if w.install != nil {
		return n.replaceState(w.install)
	}
	return n.applyEntries(w.msg)
}

func (n *Node) applyEntries(m *raftpb.Message) error {
	entries := m.GetEntries()
	last := entries[len(entries)-1]
	if err := n.cfg.Applier.Apply(entries); err != nil {
		return fmt.Errorf("entries %d to %d: %w", entries[0].GetIndex(), last.GetIndex(), err)
	}
	n.noteApplied(last.GetIndex(), last.GetTerm())
	n.giveLoop(m.GetResponses())
	return nil
}

func (n *Node) replaceState(w *installWork) error {
	if err := n.cfg.Applier.InstallSnapshot(n.ctx, w.meta, w.path); err != nil {
		return fmt.Errorf("install the snapshot of index %d: %w", w.meta.GetIndex(), err)
	}
	n.confState = w.meta.GetConfState()
	n.noteApplied(w.meta.GetIndex(), w.meta.GetTerm())
	n.cfg.Logger.Info("snapshot installed", "index", w.meta.GetIndex(), "term", w.meta.GetTerm(), "took", time.Since(w.began).String())
	close(w.done)
	return nil
}

func (n *Node) noteApplied(index, term uint64) {
	n.storage.setApplied(index, term, n.confState)
	n.status.applied.Store(index)
}

// ApplyConfChange makes raft follow a committed membership change. The Applier calls it from within Apply for each change that it accepts,
// and stores the ConfState that it returns in the same transaction as the entry. An error other than [ErrStopped] means that the
// change does not fit the membership and has no effect; that is the same on every member. [ErrStopped] must be returned from Apply.
func (n *Node) ApplyConfChange(cc raftpb.ConfChangeI) (*raftpb.ConfState, error) {
	var cs *raftpb.ConfState
	var refused error
	err := n.do(context.Background(), func() {
		if cs, refused = ApplyConfChange(n.raw, cc); refused == nil {
			n.setMembers(cs)
		}
	})
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, refused
	}
	n.confState = cs
	return cs, nil
}

// ApplyConfChange applies a membership change to a state machine of raft's that runs without a Node. It turns the panic for a change that does not fit into an error: raft panics before it changes anything.
func ApplyConfChange(raw *raft.RawNode, cc raftpb.ConfChangeI) (cs *raftpb.ConfState, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error:
			panic(r)
		case error:
			err = fmt.Errorf("membership change refused: %w", r)
		default:
			panic(r)
		}
	}()
	return raw.ApplyConfChange(cc), nil
}
