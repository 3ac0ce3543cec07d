package raftnode

import (
	"context"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// runLoop owns raft: it takes one input, then all else that waits (within bounds), then lets raft's work out.
func (n *Node) runLoop() (err error) {
	defer recoverRaft(&err)
	ticks, stop := n.ticks()
	defer stop()
	defer n.refuseBatch(ErrStopped)
	hold := time.NewTimer(time.Hour)
	defer hold.Stop()
	n.loop.held.timer = hold
	n.begin()
	for {
		urgent, bulk, proposals := n.urgent, n.bulk, n.proposals
		if n.storageBusy() {
			urgent, bulk, proposals = nil, nil, nil
		}
		select {
		case <-n.ctx.Done():
			return nil
		case msgs := <-n.local:
			n.stepLocal(msgs)
		case f := <-n.control:
			f()
		case m := <-urgent:
			n.stepPeer(m)
		case m := <-bulk:
			n.stepPeer(m)
		case p := <-proposals:
			n.loop.batch = append(n.loop.batch, p)
		case s := <-n.received:
			n.stepSnapshot(s)
		case id := <-n.lost:
			n.raw.ReportUnreachable(id)
		case id := <-n.gone:
			n.noteGone(id)
		case <-n.reads.wake:
			n.startRound()
		case <-hold.C:
			n.release()
		case <-ticks:
			n.tick()
		}
		n.drain()
		n.turn()
	}
}

// turn ends each round of input: it lets raft's work out and settles what hung on it.
func (n *Node) turn() {
	n.flush()
	if n.offerSnapshot() {
		n.flush()
	}
	n.settleSnapshot()
	n.propose()
}

// begin comes before the first input.
func (n *Node) begin() {
	n.campaignAlone()
	n.flush()
}

// drain takes what already waits, so that one Ready covers it all.
func (n *Node) drain() {
	for range cap(n.local) {
		select {
		case msgs := <-n.local:
			n.stepLocal(msgs)
			continue
		default:
		}
		break
	}
	if n.storageBusy() {
		return
	}
	for range inboxMax {
		select {
		case m := <-n.urgent:
			n.stepPeer(m)
			continue
		case m := <-n.bulk:
			n.stepPeer(m)
			continue
		default:
		}
		break
	}
	for len(n.loop.batch) < proposalsPerRound {
		select {
		case p := <-n.proposals:
			n.loop.batch = append(n.loop.batch, p)
			continue
		default:
		}
		break
	}
}

// storageBusy says that raft may not be asked for more work: there might be no room to hand it on without waiting.
// One place in the apply queue is the append goroutine's, for a snapshot to install.
func (n *Node) storageBusy() bool {
	return len(n.appendQ) >= cap(n.appendQ)-1 || len(n.applyQ) >= cap(n.applyQ)-1
}

func (n *Node) tick() {
	if !n.storageBusy() { // else heartbeats would pile up behind a disk that hangs; the others will elect
		n.raw.Tick()
		n.countHeartbeat()
		n.succeed()
	}
	n.release()
	n.tickReads()
	n.tickTransfers()
	n.cutLog()
}

// stepLocal gives raft the responses of its storage goroutines.
func (n *Node) stepLocal(msgs []*raftpb.Message) {
	for _, m := range msgs {
		_ = n.raw.Step(m) // a response that came too late is no error
		switch {
		case m.GetType() == raftpb.MsgStorageApplyResp:
			n.campaignAlone()
		case m.GetType() == raftpb.MsgStorageAppendResp && m.Snapshot != nil:
			n.snapshotDone()
		}
	}
}

// stepPeer gives raft a message of another member. Raft refuses responses of unknown members; that is no error here. As the only voter
// it would answer a question for a read index before its term has begun; who asked does so again.
func (n *Node) stepPeer(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgReadIndex && n.alone() && n.loop.voters[0] == n.cfg.ID && !n.termBegan() {
		return
	}
	n.noteEager(m)
	n.heard(m)
	if m.GetType() == raftpb.MsgHeartbeat { // noted later than it arrived, and so later than what it confirms began
		n.loop.obeyed.helped(m.GetTerm(), n.cfg.Now())
	}
	_ = n.raw.Step(m)
}

// campaignAlone makes the only voter leader at once: nobody else could be.
func (n *Node) campaignAlone() {
	l := &n.loop
	if n.alone() && l.voters[0] == n.cfg.ID && l.leader == 0 && l.state == raft.StateFollower {
		_ = n.raw.Campaign() // refused while membership changes wait to be applied; tried again after them
	}
}

func (n *Node) alone() bool { return len(n.loop.voters) == 1 && !n.loop.joint }

// flush hands out raft's work until there is none, or until a storage goroutine has no room for more.
func (n *Node) flush() {
	for !n.storageBusy() && n.raw.HasReady() {
		rd := n.raw.Ready()
		n.noteReady(&rd)
		n.dispatch(rd.Messages)
		n.observe()
		n.tickTransfers() // whoever waits for one then reads a Status that knows of it
		n.answerReads(rd.ReadStates)
		n.startRound()
	}
}

func (n *Node) noteReady(rd *raft.Ready) {
	l := &n.loop
	if !raft.IsEmptySnap(rd.Snapshot) {
		l.lastIndex = rd.Snapshot.GetMetadata().GetIndex()
		n.setMembers(rd.Snapshot.GetMetadata().GetConfState())
	}
	if k := len(rd.Entries); k > 0 {
		l.lastIndex = rd.Entries[k-1].GetIndex()
	}
	n.acceptSnapshot(rd.Snapshot)
	if rd.SoftState != nil {
		n.noteLead()
		if lead := rd.SoftState.Lead; lead != 0 && lead != l.leader {
			l.succession = succession{}
		}
		l.leader, l.state = rd.SoftState.Lead, rd.SoftState.RaftState
		if l.state != raft.StateLeader {
			n.endSends()
		}
	}
	if !raft.IsEmptyHardState(rd.HardState) {
		if term := rd.HardState.GetTerm(); term != l.term {
			n.noteLead()
			l.term, l.barrier = term, 0
		}
		if commit := rd.HardState.GetCommit(); commit != l.commit {
			l.commit = commit
			if n.cfg.Hooks.Committed != nil {
				n.cfg.Hooks.Committed(commit)
			}
		}
	}
	if l.state != raft.StateLeader {
		l.barrier = 0
	} else if i := slices.IndexFunc(rd.Entries, func(e *raftpb.Entry) bool { return e.GetTerm() == l.term }); i >= 0 && l.barrier == 0 {
		l.barrier = rd.Entries[i].GetIndex()
	}
}

// dispatch sends each message of a Ready to the goroutine or member it is for.
func (n *Node) dispatch(msgs []*raftpb.Message) {
	out := n.loop.outbox[:0]
	for _, m := range msgs {
		switch {
		case m.GetTo() == raft.LocalAppendThread:
			work := appendWork{msg: m}
			if m.Snapshot != nil {
				work.snapshot = n.loop.incoming
			}
			n.appendQ <- work // has room: flush looked
		case m.GetTo() == raft.LocalApplyThread:
			n.applyQ <- applyWork{msg: m}
		case m.GetType() == raftpb.MsgSnap:
			n.sendSnapshot(m)
		case n.holds(m):
		default:
			out = append(out, m)
		}
	}
	if len(out) > 0 {
		n.cfg.Transport.Send(out)
	}
	clear(out) // for the collector
	n.loop.outbox = out
}

// setMembers notes who votes.
func (n *Node) setMembers(cs *raftpb.ConfState) {
	n.loop.obeyed.moved(n.cfg.Now())
	n.loop.voters, n.loop.joint = slices.Clone(cs.GetVoters()), len(cs.GetVotersOutgoing()) > 0
	n.loop.others = 0
	for _, id := range slices.Concat(cs.GetVoters(), cs.GetLearners()) {
		if id != n.cfg.ID {
			n.loop.others++
		}
	}
	n.status.learner.Store(slices.Contains(cs.GetLearners(), n.cfg.ID))
}

// Step takes a message of another member. It waits while the node is busy, until ctx ends. Messages that only a node may send to itself, and
// proposals, are thrown away: a proposal is made where its caller is answered.
func (n *Node) Step(ctx context.Context, m *raftpb.Message) error {
	if !acceptable(m, n.cfg.ID) {
		return nil
	}
	in := n.urgent
	if m.GetType() == raftpb.MsgApp { // all of them, so that they stay in order: one that overtakes is rejected
		in = n.bulk
	}
	select {
	case in <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.done:
		return ErrStopped
	}
}

// acceptable says whether m is one that another member may send to this one in a stream of messages.
func acceptable(m *raftpb.Message, self uint64) bool {
	if from := m.GetFrom(); from == 0 || from == self || raft.IsLocalMsgTarget(from) || m.GetTo() != self || raft.IsLocalMsg(m.GetType()) {
		return false
	}
	if m.GetTerm() == 0 && m.GetType() != raftpb.MsgReadIndex {
		return false // raft takes what bears no term for its own
	}
	switch m.GetType() { //nolint:exhaustive // the list of what members send is closed; all else is refused
	case raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp,
		raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow:
		return true
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		return len(m.GetEntries()) == 1
	}
	return false
}

// ReportUnreachable says that a message to member id was lost. It never blocks.
func (n *Node) ReportUnreachable(id uint64) {
	select {
	case n.lost <- id:
	default: // one report of many is enough
	}
}
