package raftnode

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
)

// readIDBytes is the length of an attempt's id: member, random number of this start, counter.
const readIDBytes = 24

// readRound is one question for the commit index, shared by all who joined before it was first asked. index is set before done is closed.
type readRound struct {
	done    chan struct{}
	index   uint64
	err     error
	readers atomic.Int32
}

// readQueue holds the round that can still be joined.
type readQueue struct {
	mu      sync.Mutex
	next    *readRound
	stopped bool
	wake    chan struct{} // says that next was made
}

// ReadIndex returns an index at or above everything that was acknowledged anywhere before the call. The caller waits until its own state has
// applied it, and may then read. It asks until ctx ends. Errors: the context's, [ErrStopped].
func (n *Node) ReadIndex(ctx context.Context) (uint64, error) {
	r := n.reads.join()
	if r == nil {
		return 0, ErrStopped
	}
	defer r.readers.Add(-1)
	select {
	case <-r.done:
		return r.index, r.err
	case <-ctx.Done():
		return 0, n.countRead(ctx.Err())
	case <-n.done:
		return 0, ErrStopped
	}
}

func (q *readQueue) join() *readRound {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return nil
	}
	if q.next == nil {
		q.next = &readRound{done: make(chan struct{})}
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	q.next.readers.Add(1)
	return q.next
}

// take closes the round to those who come later.
func (q *readQueue) take() *readRound {
	q.mu.Lock()
	defer q.mu.Unlock()
	r := q.next
	q.next = nil
	return r
}

func (q *readQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
}

// startRound asks for the next round if none is in flight and there is somebody to ask.
func (n *Node) startRound() {
	l := &n.loop
	if l.round != nil || !n.canAsk() {
		return
	}
	if l.round = n.reads.take(); l.round != nil {
		n.ask()
	}
}

// canAsk says whether asking now can lead to a right answer. A single voter confirms by itself, so raft answers at once, from a
// commit index that may lag behind what was acknowledged before a restart until an entry of its own term is committed.
func (n *Node) canAsk() bool {
	l := &n.loop
	if l.leader == 0 {
		return false
	}
	if l.leader == n.cfg.ID && n.alone() {
		return n.termBegan()
	}
	return true
}

// termBegan says that this node leads and that an entry of its term is committed.
func (n *Node) termBegan() bool { return n.loop.barrier != 0 && n.loop.commit >= n.loop.barrier }

// ask makes an attempt, with an id never used before: answers to earlier attempts, however late, no longer fit.
func (n *Node) ask() {
	l := &n.loop
	l.attempts++
	binary.LittleEndian.PutUint64(l.roundID[0:], n.cfg.ID)
	binary.LittleEndian.PutUint64(l.roundID[8:], l.nonce)
	binary.LittleEndian.PutUint64(l.roundID[16:], l.attempts)
	l.roundTerm, l.roundLeader, l.roundTicks = l.term, l.leader, 0
	id := l.roundID // raft keeps it
	n.raw.ReadIndex(id[:])
}

// answerReads ends the round in flight if one of the answers is its own, and if nothing has happened to the leadership under which it
// was asked. Otherwise it asks again.
func (n *Node) answerReads(states []raft.ReadState) {
	l := &n.loop
	if l.round == nil {
		return
	}
	current := l.leader != 0 && l.term == l.roundTerm && l.leader == l.roundLeader
	for _, s := range states {
		if current && string(s.RequestCtx) == string(l.roundID[:]) {
			l.round.index = s.Index
			close(l.round.done)
			l.round = nil
			return
		}
	}
	if !current && n.canAsk() {
		n.ask()
	}
}

// tickReads asks again after half an election timeout without an answer, and drops a round that nobody waits for.
func (n *Node) tickReads() {
	l := &n.loop
	if l.round == nil {
		return
	}
	if l.roundTicks++; l.roundTicks < max(1, n.cfg.ElectionTicks/2) {
		return
	}
	if l.round.readers.Load() == 0 {
		l.round = nil
		n.startRound()
		return
	}
	if n.canAsk() {
		n.counters.slowReads.Add(1)
		n.ask()
	}
}
