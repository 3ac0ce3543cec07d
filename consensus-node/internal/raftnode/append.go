package raftnode

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// groupBytesMax bounds one write of the log: past it a group is closed, so that what waits behind it is not held up much longer.
const groupBytesMax = 8 << 20

// appendWork is a MsgStorageAppend, or a cut of the log up to a mark that the in-memory log has already made.
type appendWork struct {
	msg      *raftpb.Message
	snapshot *receivedSnapshot // set with a message that carries a snapshot
	cut      *wal.SnapshotMark
}

// appender gathers work into groups. It is the append goroutine's own.
type appender struct {
	n         *Node
	entries   []*raftpb.Entry
	bytes     int
	hard      *raftpb.HardState // the last one of the group, nil if none
	written   raftpb.HardState  // the last one handed to the log
	unsynced  bool              // the log holds entries, a term or a vote that may not be durable
	responses []*raftpb.Message
	told      acknowledged
}

func startAppender(n *Node) *appender {
	a := &appender{n: n}
	a.written.Term, a.written.Vote = new(n.cfg.HardState.GetTerm()), new(n.cfg.HardState.GetVote())
	return a
}

// runAppend writes the log until the node ends. What waits is written in one group with at most one sync.
func (n *Node) runAppend() error {
	a := startAppender(n)
	quiet := time.NewTimer(n.cfg.ConfirmAfter) // also after a start: what the log held then is to be confirmed
	defer quiet.Stop()
	for {
		select {
		case <-n.ctx.Done():
			return nil
		case w := <-n.appendQ:
			if err := a.round(w); err != nil {
				return err
			}
			quiet.Reset(n.cfg.ConfirmAfter)
		case <-quiet.C:
			if err := n.cfg.Log.Confirm(); err != nil {
				return err
			}
		}
	}
}

// round does one piece of work and all that already waits behind it.
func (a *appender) round(w appendWork) error {
	for {
		install, err := a.take(w)
		if err != nil {
			return err
		}
		if install != nil {
			if err := a.n.awaitInstall(install); err != nil {
				return err
			}
			if err := a.installed(w.msg); err != nil {
				return err
			}
		}
		select {
		case w = <-a.n.appendQ:
			continue
		default:
		}
		return a.write()
	}
}

// take adds work to the group. What cannot be one write with the group comes after it. A message with a snapshot is not in the group
// yet: what take returns then must become the state first, and installed goes on with the message.
func (a *appender) take(w appendWork) (*installWork, error) {
	if w.cut != nil {
		if err := a.write(); err != nil {
			return nil, err
		}
		return nil, a.cut(*w.cut)
	}
	m := w.msg
	if m.Snapshot != nil {
		if err := a.write(); err != nil {
			return nil, err
		}
		return a.n.installSnapshot(m.GetSnapshot().GetMetadata(), w.snapshot)
	}
	if len(m.GetEntries()) > 0 && !a.joins(m.GetEntries()) {
		if err := a.write(); err != nil {
			return nil, err
		}
	}
	a.add(m)
	return nil, nil
}

// installed goes on with a message whose snapshot has become the state.
func (a *appender) installed(m *raftpb.Message) error {
	if err := a.n.step(SnapshotInstalled); err != nil {
		return err
	}
	mark := snapshotMark(m.GetSnapshot().GetMetadata())
	a.n.storage.reset(mark)
	if err := a.n.cfg.Log.Release(mark.Index); err != nil {
		return err
	}
	a.unsynced = false // the mark was made durable, and all before it
	a.add(m)           // whose entries, if any, begin the group: what came before is written
	return nil
}

// joins says whether entries continue the group.
func (a *appender) joins(entries []*raftpb.Entry) bool {
	k := len(a.entries)
	return k == 0 || (a.bytes < groupBytesMax && a.entries[k-1].GetIndex()+1 == entries[0].GetIndex())
}

func (a *appender) add(m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		a.bytes += len(e.GetData())
	}
	a.entries = append(a.entries, m.GetEntries()...)
	hs := &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	if !raft.IsEmptyHardState(hs) {
		a.hard = hs
	}
	for _, r := range m.GetResponses() {
		a.responses = addResponse(a.responses, r)
	}
}

// write makes the group durable as far as its responses need it, and then lets them go. A commit index alone needs no sync, nor do
// entries or a vote that nobody is told of yet; the next sync covers them. It is written all the same, so that it outlives the process:
// who must make a new cluster of the last member that is left goes by it.
func (a *appender) write() error {
	n := a.n
	if len(a.entries) > 0 || a.votesDiffer() {
		a.unsynced = true
	}
	sync := a.unsynced && len(a.responses) > 0
	if len(a.entries) > 0 || a.hard != nil || sync {
		if err := n.cfg.Log.Append(a.entries, a.hard, sync); err != nil {
			return err
		}
	}
	if sync {
		a.unsynced = false
	}
	if a.hard != nil {
		a.written.Term, a.written.Vote = a.hard.Term, a.hard.Vote
	}
	if k := len(a.entries); k > 0 {
		n.storage.append(a.entries)
		if n.cfg.Hooks.Appended != nil && sync {
			n.cfg.Hooks.Appended(a.entries[k-1].GetIndex())
		}
	}
	responses := a.responses
	clear(a.entries)
	a.entries, a.bytes, a.hard, a.responses = a.entries[:0], 0, nil, nil
	n.deliver(responses, &a.told)
	return nil
}

func (a *appender) votesDiffer() bool {
	return a.hard != nil && (a.hard.GetTerm() != a.written.GetTerm() || a.hard.GetVote() != a.written.GetVote())
}

func (a *appender) cut(m wal.SnapshotMark) error {
	if err := a.n.cfg.Log.MarkSnapshot(m); err != nil {
		return err
	}
	a.unsynced = false // the mark is durable, and all before it
	return a.n.cfg.Log.Release(m.Index)
}

// addResponse adds r, in the place of an earlier acknowledgement that r repeats: raft only looks at how far it reaches.
func addResponse(all []*raftpb.Message, r *raftpb.Message) []*raftpb.Message {
	if i := len(all) - 1; i >= 0 && mergeable(r) {
		for ; i >= 0 && i >= len(all)-2; i-- { // a Ready gives at most two kinds, in turn
			p := all[i]
			if mergeable(p) && p.GetType() == r.GetType() && p.GetTo() == r.GetTo() && p.GetTerm() == r.GetTerm() && p.GetIndex() <= r.GetIndex() {
				// Keep the order: the later response takes the last place.
				return append(append(all[:i:i], all[i+1:]...), r)
			}
		}
	}
	return append(all, r)
}

func mergeable(m *raftpb.Message) bool {
	switch m.GetType() { //nolint:exhaustive // only acknowledgements of appends repeat each other
	case raftpb.MsgAppResp, raftpb.MsgStorageAppendResp:
		return !m.GetReject() && m.Snapshot == nil && m.GetIndex() > 0
	}
	return false
}

// deliver gives this node's own responses to the loop and the others to the transport.
func (n *Node) deliver(msgs []*raftpb.Message, told *acknowledged) {
	var own, others []*raftpb.Message
	for _, m := range msgs {
		if m.GetTo() == n.cfg.ID {
			own = append(own, m)
		} else {
			others = append(others, m)
		}
	}
	if others = told.news(others); len(others) > 0 {
		n.markEager(others)
		n.cfg.Transport.Send(others)
	}
	n.giveLoop(own)
}

func (n *Node) giveLoop(msgs []*raftpb.Message) {
	if len(msgs) == 0 {
		return
	}
	select {
	case n.local <- msgs:
	case <-n.ctx.Done(): // the loop has ended or will; raft needs no answer
	}
}
