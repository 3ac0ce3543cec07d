package transport

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/holdfastdb/holdfast/proto/holdfast/peer/v1"
)

const (
	settleMax  = 5 * time.Second
	settleLook = 2 * time.Millisecond
)

// A member that was removed while its streams are open hears of it although it has nothing to say.
func TestRemovedMemberIsEvicted(t *testing.T) {
	var removed atomic.Bool
	told := make(chan struct{}, 16)
	lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	in := NewServer(Config{ID: 2, ClusterID: cluster, Removed: func(uint64) bool { return removed.Load() }}, &fakeNode{})
	server := grpc.NewServer(grpc.WaitForHandlers(true))
	peerv1.RegisterPeerServer(server, in)
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	out := New(Config{ID: 1, ClusterID: cluster, OnRemoved: func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}})
	defer out.Close()
	require.NoError(t, out.AddPeer(2, []string{"http://" + lis.Addr().String()}))
	require.Eventually(t, func() bool { return !out.ActiveSince(2).IsZero() }, settleMax, settleLook)
	require.Empty(t, told)
	removed.Store(true)
	in.Evict(1)
	select {
	case <-told:
	case <-time.After(settleMax):
		require.Fail(t, "not told")
	}
	in.Evict(1) // nobody is left
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

// A new leader learns how long a member has been silent towards earlier ones, from that very member and in its own term alone.
func TestSilenceIsAskedOfTheMemberItself(t *testing.T) {
	p := newPair(t, Config{}, &fakeNode{silent: 1500 * time.Millisecond})
	silent, err := p.out.Silence(t.Context(), 2, 7)
	require.NoError(t, err)
	require.Equal(t, 1500*time.Millisecond, silent)
	_, err = p.out.Silence(t.Context(), 2, 8)
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	_, err = p.out.Silence(t.Context(), 3, 7)
	require.Error(t, err, "not a peer")
	require.NoError(t, p.out.AddPeer(4, []string{p.url}))
	_, err = p.out.Silence(t.Context(), 4, 7)
	require.Equal(t, codes.FailedPrecondition, status.Code(err), "another member answers there")
}
