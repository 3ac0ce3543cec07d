package raftnode

import "go.etcd.io/raft/v3/raftpb"

// acknowledged is what each leader was told last of how far the log reaches here. A leader that commits an entry tells its followers,
// and raft acknowledges that with the index that it acknowledged before: for a single writer half of all answers say nothing new.
type acknowledged struct{ last map[uint64]acknowledgement }

type acknowledgement struct {
	term, index uint64
	omitted     bool // the last one like it was not sent
}

// news gives the messages without acknowledgements that only repeat the last one. Of repetitions every second one goes: a leader that
// lost an earlier one asks again with each heartbeat, and must get an answer.
func (a *acknowledged) news(msgs []*raftpb.Message) []*raftpb.Message {
	kept := msgs[:0]
	for _, m := range msgs {
		if !a.repeats(m) {
			kept = append(kept, m)
		}
	}
	clear(msgs[len(kept):])
	return kept
}

func (a *acknowledged) repeats(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgAppResp {
		return false
	}
	if !mergeable(m) { // a refusal: what comes after it is new
		delete(a.last, m.GetTo())
		return false
	}
	last := a.last[m.GetTo()]
	same := last.term == m.GetTerm() && last.index == m.GetIndex()
	omit := same && !last.omitted
	if a.last == nil {
		a.last = map[uint64]acknowledgement{}
	}
	a.last[m.GetTo()] = acknowledgement{term: m.GetTerm(), index: m.GetIndex(), omitted: omit}
	return omit
}
