package raftnode

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// wire notes what was durable when each message left.
type wire struct {
	log  *testLog
	sent []*raftpb.Message
	then []logContent
}

func (w *wire) Send(msgs []*raftpb.Message) {
	for _, m := range msgs {
		w.sent = append(w.sent, m)
		w.then = append(w.then, w.log.durable)
	}
}

func (w *wire) SendSnapshot(context.Context, *raftpb.Message, Image) error { return nil }

func appendMsg(term, vote, commit uint64, entries []*raftpb.Entry, responses ...*raftpb.Message) appendWork {
	return appendWork{msg: &raftpb.Message{
		Type: raftpb.MsgStorageAppend.Enum(), To: new(raft.LocalAppendThread),
		Term: &term, Vote: &vote, Commit: &commit, Entries: entries, Responses: responses,
	}}
}

func response(typ raftpb.MessageType, to, term, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: typ.Enum(), From: new(uint64(1)), To: &to, Term: &term, Index: &index}
}

func newAppender(t *testing.T) (*appender, *wire) {
	t.Helper()
	w := &wire{log: &testLog{}}
	n, err := New(Config{ID: 1, Transport: w, Log: w.log, Applier: &testState{}})
	require.NoError(t, err)
	return &appender{n: n}, w
}

func TestVoteIsDurableBeforeItLeaves(t *testing.T) {
	a, w := newAppender(t)
	require.NoError(t, a.round(appendMsg(3, 2, 0, nil, response(raftpb.MsgVoteResp, 2, 3, 0))))
	require.Len(t, w.sent, 1)
	require.Equal(t, uint64(2), w.then[0].hard.GetVote())
	require.Equal(t, uint64(3), w.then[0].hard.GetTerm())
}

func TestTermWrittenWithoutSyncIsDurableBeforeALaterAnswer(t *testing.T) {
	a, w := newAppender(t)
	require.NoError(t, a.round(appendMsg(3, 2, 0, nil)))
	require.Zero(t, w.log.syncs, "nobody is told of it yet")
	require.NoError(t, a.round(appendWork{msg: &raftpb.Message{Responses: []*raftpb.Message{response(raftpb.MsgAppResp, 2, 3, 0)}}}))
	require.Len(t, w.sent, 1)
	require.Equal(t, uint64(3), w.then[0].hard.GetTerm())
}

func TestCommitAloneIsWrittenAndNotSynced(t *testing.T) {
	a, w := newAppender(t)
	e := []*raftpb.Entry{{Index: new(uint64(1)), Term: new(uint64(3))}}
	require.NoError(t, a.round(appendMsg(3, 2, 0, e, response(raftpb.MsgAppResp, 2, 3, 1))))
	require.Equal(t, 1, w.log.syncs)
	require.Len(t, w.then[0].entries, 1)
	require.NoError(t, a.round(appendMsg(3, 2, 1, nil, response(raftpb.MsgAppResp, 2, 3, 1))))
	require.Equal(t, 1, w.log.syncs)
	require.Equal(t, uint64(1), w.log.now.hard.GetCommit(), "it outlives the process")
	require.Len(t, w.sent, 1, "the leader knows already how far the log reaches")
}

// A leader that asks again, since the answer was lost, gets one after two questions at the latest; another leader, one that was refused
// and one of another term at once.
func TestAcknowledgementIsRepeatedWhenAskedAgain(t *testing.T) {
	a, w := newAppender(t)
	sent := func(m *raftpb.Message) int {
		before := len(w.sent)
		require.NoError(t, a.round(appendMsg(m.GetTerm(), 2, 0, nil, m)))
		return len(w.sent) - before
	}
	ack := func(to, term, index uint64) *raftpb.Message { return response(raftpb.MsgAppResp, to, term, index) }
	refusal := func() *raftpb.Message {
		m := ack(2, 3, 8)
		m.Reject = new(true)
		return m
	}
	require.Equal(t, 1, sent(ack(2, 3, 7)))
	for range 3 {
		require.Equal(t, 0, sent(ack(2, 3, 7)))
		require.Equal(t, 1, sent(ack(2, 3, 7)))
	}
	require.Equal(t, 1, sent(ack(3, 3, 7)), "another member has not been told")
	require.Equal(t, 1, sent(ack(2, 3, 8)))
	require.Equal(t, 0, sent(ack(2, 3, 8)))
	require.Equal(t, 1, sent(ack(2, 3, 9)), "news go at once")
	require.Equal(t, 1, sent(ack(2, 4, 9)), "another term has heard nothing")
	require.Equal(t, 1, sent(refusal()))
	require.Equal(t, 1, sent(refusal()), "refusals always go")
	require.Equal(t, 1, sent(ack(2, 4, 9)), "after a refusal nothing counts as told")
}

func TestReplacedEntriesAreWrittenAfterThoseTheyReplace(t *testing.T) {
	a, w := newAppender(t)
	at := func(index, term uint64) *raftpb.Entry { return &raftpb.Entry{Index: &index, Term: &term} }
	a.n.appendQ <- appendMsg(3, 0, 0, []*raftpb.Entry{at(3, 2)}, response(raftpb.MsgAppResp, 2, 3, 3))
	a.n.appendQ <- appendMsg(4, 0, 0, []*raftpb.Entry{at(2, 4)}, response(raftpb.MsgAppResp, 3, 4, 2))
	require.NoError(t, a.round(appendMsg(3, 0, 0, []*raftpb.Entry{at(1, 2), at(2, 2)}, response(raftpb.MsgAppResp, 2, 3, 2))))
	require.Equal(t, 2, w.log.appends, "the first two are one write")
	require.Len(t, w.log.durable.entries, 2)
	require.Equal(t, uint64(4), w.log.durable.entries[1].GetTerm())
	require.Len(t, w.sent, 2)
	require.Equal(t, uint64(3), w.sent[0].GetIndex(), "the answer that says more")
	term, err := a.n.storage.Term(2)
	require.NoError(t, err)
	require.Equal(t, uint64(4), term)
}

func TestOnlyRepeatedAcknowledgementsAreLeftOut(t *testing.T) {
	self, other := uint64(1), uint64(2)
	reject := response(raftpb.MsgAppResp, other, 3, 9)
	reject.Reject = new(true)
	var all []*raftpb.Message
	for _, m := range []*raftpb.Message{
		response(raftpb.MsgAppResp, self, 3, 5), response(raftpb.MsgStorageAppendResp, self, 3, 5),
		response(raftpb.MsgAppResp, self, 3, 6), response(raftpb.MsgStorageAppendResp, self, 3, 6),
		response(raftpb.MsgAppResp, self, 4, 7), // another term
		response(raftpb.MsgVoteResp, other, 4, 0),
		response(raftpb.MsgAppResp, other, 4, 7), response(raftpb.MsgAppResp, other, 4, 6), // says less
		reject, response(raftpb.MsgStorageAppendResp, self, 4, 0), // knows of nothing unstable
	} {
		all = addResponse(all, m)
	}
	var got [][3]uint64
	for _, m := range all {
		got = append(got, [3]uint64{m.GetTo(), m.GetTerm(), m.GetIndex()})
	}
	require.Equal(t, [][3]uint64{{1, 3, 6}, {1, 3, 6}, {1, 4, 7}, {2, 4, 0}, {2, 4, 7}, {2, 4, 6}, {2, 3, 9}, {1, 4, 0}}, got)
	require.Equal(t, raftpb.MsgAppResp, all[0].GetType(), "before the one that lets unstable entries go")
}
