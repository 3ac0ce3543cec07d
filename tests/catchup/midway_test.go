package catchup

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// underWay waits until a node is receiving an image.
func (s *system) underWay(t *testing.T, name string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(s.images(t, name)) > 0 }, patience, 5*time.Millisecond)
}

// fill writes so much that an image takes several seconds at the least rate, and more entries than a log keeps.
func fill(t *testing.T, client *clientv3.Client) {
	t.Helper()
	const count, size = 200, 40 << 10
	for i := range count {
		_, err := client.Put(bounded(t), fmt.Sprint("fill/", i), string(make([]byte, size)))
		require.NoError(t, err)
	}
}

// A receiver that is killed in the middle of a snapshot, and then a leader that is, delay it and nothing more: the next attempt
// begins anew, and what the broken one left is gone.
func TestKilledMidway(t *testing.T) {
	s := standalone(t, shortLogs("--snapshot-send-bytes-per-second", fmt.Sprint(1<<20))...)
	away := s.follower(t)
	client := s.ClientAt(t, s.others(away)...)
	s.Kill(t, away, syscall.SIGKILL)
	fill(t, client)

	s.Launch(t, away)
	s.underWay(t, away)
	s.Kill(t, away, syscall.SIGKILL)
	require.Len(t, s.images(t, away), 1, "it was killed midway")
	require.Zero(t, s.installs(t, away))

	s.Launch(t, away)
	s.underWay(t, away)
	leader := s.leader(t)
	s.Kill(t, leader, syscall.SIGKILL)
	require.Zero(t, s.installs(t, away), "the leader was killed midway")
	// The third member sends it another one: the two are the majority, and writes go on once it is installed.
	require.Eventually(t, func() bool { return s.installs(t, away) > 0 }, patience, 20*time.Millisecond)
	s.AwaitReady(t, away)
	_, err := s.ClientAt(t, s.others(leader)...).Put(bounded(t), "after", "two")
	require.NoError(t, err)
	require.Empty(t, s.images(t, away))

	s.Start(t, leader)
	all := s.Client(t)
	put, err := all.Put(bounded(t), "after", "all")
	require.NoError(t, err)
	s.agree(t, put.Header.Revision)
}
