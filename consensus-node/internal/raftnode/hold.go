package raftnode

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// held are appends without entries: a leader tells its followers with them how far the log is committed. The next append with entries
// says the same, so one that waits for it for a moment costs a single writer no message, no wake-up and no write of each follower. What
// is held longer than Config.CommitHold goes alone, as does everything held at a tick. The loop's own.
type held struct {
	byMember map[uint64]*raftpb.Message
	timer    *time.Timer
	// eager are the members whose last acknowledgement said that they want to hear of commits at once.
	eager map[uint64]bool
}

// eagerMark is the context of an acknowledgement whose sender wants to hear of commits at once. Raft does not look at it.
var eagerMark = []byte("eager") //nolint:gochecknoglobals // a constant

// markEager marks acknowledgements that go to a leader.
func (n *Node) markEager(msgs []*raftpb.Message) {
	if n.cfg.Eager == nil || !n.cfg.Eager() {
		return
	}
	for _, m := range msgs {
		if m.GetType() == raftpb.MsgAppResp {
			m.Context = eagerMark
		}
	}
}

// noteEager takes in whether an acknowledgement is marked. What is held for a member that has become eager goes.
func (n *Node) noteEager(m *raftpb.Message) {
	if n.cfg.CommitHold == 0 || m.GetType() != raftpb.MsgAppResp {
		return
	}
	h, marked := &n.loop.held, bytes.Equal(m.GetContext(), eagerMark)
	if marked == h.eager[m.GetFrom()] {
		return
	}
	if !marked {
		delete(h.eager, m.GetFrom())
		return
	}
	if h.eager == nil {
		h.eager = map[uint64]bool{}
	}
	h.eager[m.GetFrom()] = true
	n.release()
}

// holds takes a message that can wait, and drops one that waited where m says as much.
func (n *Node) holds(m *raftpb.Message) bool {
	h := &n.loop.held
	if n.cfg.CommitHold == 0 || m.GetType() != raftpb.MsgApp || h.eager[m.GetTo()] {
		return false
	}
	if len(m.GetEntries()) > 0 {
		delete(h.byMember, m.GetTo())
		return false
	}
	if h.byMember == nil {
		h.byMember = map[uint64]*raftpb.Message{}
	}
	if len(h.byMember) == 0 && n.stepper == nil {
		h.timer.Reset(n.cfg.CommitHold)
	}
	h.byMember[m.GetTo()] = m
	return true
}

// release lets go what is held. Of another term it is of no use.
func (n *Node) release() {
	h := &n.loop.held
	if len(h.byMember) == 0 {
		return
	}
	out := make([]*raftpb.Message, 0, len(h.byMember))
	for _, to := range slices.Sorted(maps.Keys(h.byMember)) { // always the same order, for a simulation
		m := h.byMember[to]
		if m.GetTerm() == n.loop.term {
			out = append(out, m)
		}
	}
	clear(h.byMember)
	if len(out) > 0 {
		n.cfg.Transport.Send(out)
	}
}
