package raftnode

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// quietTicks is for how many ticks a leader must not have been heard of before its followers believe that it is gone: one that lives sends
// something at each tick.
const quietTicks = 2

// succession is what a follower knows of the end of its leader. A process that ends closes its port, and whoever connects to it is refused
// at once; an election timeout is for those whose end nobody can see. So followers that are refused by a leader that is silent forget it,
// and stand for election one after the other. Nothing depends on their being right: it takes a quorum that has forgotten the leader to elect
// another one, as it takes a quorum to make one by a transfer.
//
// The loop's own.
type succession struct {
	gone  uint64 // the leader that is said to be gone; 0: none
	term  uint64 // in which it leads
	quiet int    // ticks since the leader was heard of
}

// ReportGone says that the process of member id has ended, as far as it can be seen from here: its address refuses connections. It never
// blocks, and may be called again as long as that is so.
func (n *Node) ReportGone(id uint64) {
	select {
	case n.gone <- id:
	default: // another report is on its way, and this one comes again
	}
}

// noteGone takes a report. Only that of the leader matters.
func (n *Node) noteGone(id uint64) {
	l := &n.loop
	if id == l.leader && l.state == raft.StateFollower {
		l.succession.gone, l.succession.term = id, l.term
	}
}

// heard notes a message of a member, which may be the leader.
func (n *Node) heard(m *raftpb.Message) {
	if from := m.GetFrom(); from == n.loop.leader || from == n.loop.succession.gone {
		n.loop.succession = succession{}
	}
}

// succeed is called at each tick.
func (n *Node) succeed() {
	l := &n.loop
	s := &l.succession
	s.quiet++
	if s.gone == 0 || s.quiet < quietTicks {
		return
	}
	// Past an election timeout raft has begun an election by itself, or nobody can win one.
	if l.term != s.term || l.leader != 0 && l.leader != s.gone || s.quiet > n.cfg.ElectionTicks+quietTicks {
		s.gone = 0
		return
	}
	turn, turns := n.turnOf(s.gone)
	if turn < 0 {
		return
	}
	if l.leader == s.gone {
		n.cfg.Logger.Info("the leader's process is gone", "leader", fmt.Sprintf("%x", s.gone))
		_ = n.raw.ForgetLeader()
	}
	if (s.quiet-quietTicks)%turns == turn {
		_ = n.raw.Campaign() // for a pre-vote; refused while membership changes wait to be applied
	}
}

// turnOf is this node's place among the voters that are not gone, and how many they are; negative if it is none of them. While the members
// change, elections take their time.
func (n *Node) turnOf(gone uint64) (turn, turns int) {
	turn = -1
	if n.loop.joint {
		return turn, 0
	}
	before := 0
	for _, id := range n.loop.voters {
		switch {
		case id == gone:
			continue
		case id < n.cfg.ID:
			before++
		case id == n.cfg.ID:
			turn = 0
		}
		turns++
	}
	if turn == 0 {
		turn = before
	}
	return turn, turns
}
