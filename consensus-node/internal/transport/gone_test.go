package transport

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A member is gone when all its addresses refuse connections, not when one does not answer.
func TestAMemberIsGoneWhenItsAddressesRefuse(t *testing.T) {
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	defer silent.Close()
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := "http://" + free.Addr().String()
	require.NoError(t, free.Close())

	there := &fakeNode{}
	url, stop := serve(t, Config{ID: 2, ClusterID: 7, Dir: t.TempDir()}, there, "127.0.0.1:0")
	node := &fakeNode{}
	tr := New(Config{ID: 1, ClusterID: 7})
	t.Cleanup(tr.Close)
	tr.Start(node)
	require.NoError(t, tr.AddPeer(2, []string{url}))
	require.NoError(t, tr.AddPeer(3, []string{"http://" + silent.Addr().String()}))
	require.NoError(t, tr.AddPeer(4, []string{nobody, "http://" + silent.Addr().String()}))
	require.NoError(t, tr.AddPeer(5, []string{nobody, nobody}))
	require.Eventually(t, func() bool { return !tr.ActiveSince(2).IsZero() }, 10*time.Second, 5*time.Millisecond)
	require.Zero(t, node.said(2))
	stop()
	for _, gone := range []uint64{2, 5} {
		for range 2 { // and it is said again
			before := node.said(gone)
			require.Eventually(t, func() bool { return node.said(gone) > before }, 10*time.Second, 5*time.Millisecond)
		}
	}
	// Both addresses of 4 were tried by now: 3 and 4 wait for an answer for 2 s each.
	require.Zero(t, node.said(3))
	require.Zero(t, node.said(4))
}
