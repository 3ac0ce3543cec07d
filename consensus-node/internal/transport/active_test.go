package transport

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	settleMax  = 5 * time.Second
	settleLook = 2 * time.Millisecond
)

// A member that was removed while its stream is open hears of it at its next message, which is not delivered.
func TestRemovedMemberLearnsItAtItsNextMessage(t *testing.T) {
	var removed atomic.Bool
	told, to := make(chan struct{}, 16), &fakeNode{}
	url, _ := serve(t, Config{ID: 2, ClusterID: cluster, Removed: func(uint64) bool { return removed.Load() }}, to, "127.0.0.1:0")
	out := New(Config{ID: 1, ClusterID: cluster, OnRemoved: func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}})
	defer out.Close()
	require.NoError(t, out.AddPeer(2, []string{url}))
	require.Eventually(t, func() bool {
		out.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 0)})
		return len(to.messages()) > 0
	}, settleMax, settleLook)

	removed.Store(true)
	require.Empty(t, told)
	out.Send([]*raftpb.Message{message(raftpb.MsgPreVote, 2, 0)})
	select {
	case <-told:
	case <-time.After(settleMax):
		require.Fail(t, "not told")
	}
	require.False(t, slices.ContainsFunc(to.messages(), func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgPreVote }))
}

// A member is active from the moment its streams are open until they break.
func TestActiveSince(t *testing.T) {
	before := time.Now()
	p := newPair(t, Config{}, &fakeNode{})
	require.Zero(t, p.out.ActiveSince(3), "not a peer")
	require.Eventually(t, func() bool { return !p.out.ActiveSince(2).IsZero() }, settleMax, settleLook)
	since := p.out.ActiveSince(2)
	require.True(t, since.After(before) && since.Before(time.Now()))
	p.stop()
	require.Eventually(t, func() bool { return p.out.ActiveSince(2).IsZero() }, settleMax, settleLook)
}

// A receiver learns from the hello where the sender listens: its own list may not say it yet.
func TestHelloSaysWhereTheSenderListens(t *testing.T) {
	type heard struct {
		id   uint64
		urls []string
	}
	said := make(chan heard, 16)
	url, _ := serve(t, Config{
		ID: 2, ClusterID: cluster,
		Removed: func(id uint64) bool { return id == 9 },
		OnHello: func(id uint64, urls []string) { said <- heard{id, urls} },
	}, &fakeNode{}, "127.0.0.1:0")
	for _, id := range []uint64{9, 1} { // what a removed member says is not heard
		out := New(Config{ID: id, ClusterID: cluster, PeerURLs: []string{"http://127.0.0.1:4711"}})
		defer out.Close()
		require.NoError(t, out.AddPeer(2, []string{url}))
	}
	select {
	case h := <-said:
		require.Equal(t, heard{1, []string{"http://127.0.0.1:4711"}}, h)
	case <-time.After(settleMax):
		require.Fail(t, "nothing heard")
	}
}
