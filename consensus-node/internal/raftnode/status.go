package raftnode

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"
)

// Leadership is who leads in which term, as far as this node knows.
type Leadership struct {
	// Leader is 0 while there is none.
	Leader, Term uint64
	// State is this node's own role.
	State raft.StateType
}

// Status is what is known of the node at one moment; each field is current, but they are not of one instant.
type Status struct {
	ID uint64
	Leadership
	// Commit is the highest committed index known here, Applied the highest applied.
	Commit, Applied uint64
	// Learner says that this node replicates and does not vote.
	Learner bool
}

// Peer is a leader's view of one member.
type Peer struct {
	// Match is the highest index known to be in the member's log, Next the next to send.
	Match, Next uint64
	State       tracker.StateType
	// Active says that the member was heard of within the last election timeout.
	Active, Learner bool
}

// status is what the loop shows to everybody.
type status struct {
	commit, applied atomic.Uint64
	learner         atomic.Bool

	mu      sync.Mutex
	now     Leadership
	changed chan struct{} // closed at the next change
}

// Leadership returns who leads and a channel that is closed when that changes, or when the node ends.
func (n *Node) Leadership() (Leadership, <-chan struct{}) {
	s := &n.status
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.now, s.changed
}

// Status returns the node's state. It takes no part in the loop and is cheap.
func (n *Node) Status() Status {
	s := &n.status
	s.mu.Lock()
	now := s.now
	s.mu.Unlock()
	return Status{ID: n.cfg.ID, Leadership: now, Commit: s.commit.Load(), Applied: s.applied.Load(), Learner: s.learner.Load()}
}

// Peers returns how far each member has come, itself included; nil unless this node leads.
func (n *Node) Peers(ctx context.Context) (map[uint64]Peer, error) {
	var peers map[uint64]Peer
	err := n.do(ctx, func() {
		if n.raw.BasicStatus().RaftState == raft.StateLeader {
			peers = n.peers()
		}
	})
	return peers, err
}

func (n *Node) peers() map[uint64]Peer {
	peers := map[uint64]Peer{}
	n.raw.WithProgress(func(id uint64, typ raft.ProgressType, p tracker.Progress) {
		peers[id] = Peer{
			Match: p.Match, Next: p.Next, State: p.State,
			Active: p.RecentActive, Learner: typ == raft.ProgressTypeLearner,
		}
	})
	return peers
}

// Stopped is closed once the node has ended.
func (n *Node) Stopped() <-chan struct{} { return n.done }

// observe shows what the last Ready changed.
func (n *Node) observe() {
	s, l := &n.status, &n.loop
	s.commit.Store(l.commit)
	now := Leadership{Leader: l.leader, Term: l.term, State: l.state}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now == s.now {
		return
	}
	s.now = now
	s.wake()
}

func (s *status) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// stop says that nobody is known to lead any more: the node has ended.
func (s *status) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Leader, s.now.State = 0, raft.StateFollower
	s.wake()
}

func (n *Node) votes() bool { return slices.Contains(n.loop.voters, n.cfg.ID) }
