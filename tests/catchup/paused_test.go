package catchup

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A member that stands still, and reads nothing from its open connections, is given up and costs the others bounded memory. When it goes
// on it gets a snapshot under a running proxy and watch-hub: the watch through it, which was never closed, sees every event once.
func TestMemberThatStoodStill(t *testing.T) {
	s := standalone(t, shortLogs()...)
	still := s.follower(t)
	client := s.ClientAt(t, s.others(still)...)
	reference, through := watch(t, client), watch(t, s.ClientAt(t, s.endpoint(still)))
	put, err := client.Put(bounded(t), "before", "1")
	require.NoError(t, err)
	through.upTo(t, put.Header.Revision)

	s.Kill(t, still, syscall.SIGSTOP)
	stopped := true
	defer func() {
		if stopped {
			s.Kill(t, still, syscall.SIGCONT) // or it could not end
		}
	}()
	l := startLoad(t, client, 5*time.Millisecond)
	require.Eventually(t, func() bool { return strings.Contains(s.Output(t), "the member takes no messages") }, patience, 100*time.Millisecond)
	l.await(t, 2000)
	require.Zero(t, s.installs(t, still))
	s.Kill(t, still, syscall.SIGCONT)
	stopped = false
	l.await(t, 500)
	l.end()
	put, err = client.Put(bounded(t), "after", "1")
	require.NoError(t, err)
	s.agree(t, put.Header.Revision)
	require.Positive(t, s.installs(t, still), "it did not come by snapshot")
	require.Equal(t, reference.upTo(t, put.Header.Revision), through.upTo(t, put.Header.Revision))
	for _, node := range s.nodes {
		require.Less(t, s.peakBytes(t, node), int64(512<<20), "%s", node)
	}
}
