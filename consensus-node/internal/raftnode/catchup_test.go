package raftnode

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// A member that is added with an empty directory to a cluster whose log is cut gets an image, and then the log, while writes go on.
func TestNewMemberCatchesUpBySnapshot(t *testing.T) {
	for name, typ := range map[string]raftpb.ConfChangeType{
		"voter": raftpb.ConfChangeAddNode, "learner": raftpb.ConfChangeAddLearnerNode,
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, 3, shortLog)
				for i := range 60 {
					c.mustPut(fmt.Sprint("v", i))
					time.Sleep(20 * time.Millisecond)
				}
				_, _, mark := c.leader().log.counts()
				require.Greater(t, mark, uint64(3), "the log no longer holds the first members")

				_, err := c.leader().node.ProposeConfChange(t.Context(), &raftpb.ConfChange{Type: typ.Enum(), NodeId: new(uint64(4))})
				require.NoError(t, err)
				added := c.add(4)
				added.start(nil)
				for i := range 40 {
					c.mustPut(fmt.Sprint("w", i))
					time.Sleep(5 * time.Millisecond)
				}
				require.Len(t, c.agree().Rows, 100)
				require.Positive(t, added.state.installs)
				require.Equal(t, typ == raftpb.ConfChangeAddLearnerNode, added.node.Status().Learner)
				if typ == raftpb.ConfChangeAddNode {
					require.Contains(t, added.state.snapshot().confState().GetVoters(), uint64(4))
				}

				require.NoError(t, added.crash())
				added.start(nil)
				c.mustPut("z")
				require.Len(t, c.agree().Rows, 101)
			})
		})
	}
}

// sends is a network on which images are lost, or stand still.
type sends struct {
	mu    sync.Mutex
	at    []time.Time
	ended []error // contexts of those that stood still
}

func (s *sends) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]time.Time(nil), s.at...)
}

// An image that does not arrive is sent again after pauses that grow, and once it can arrive it does.
func TestLostImagesAreSentAgainAfterPauses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, shortLog)
		away := aside(t, c)
		var tried sends
		c.net.set(func() {
			c.net.image = func(context.Context) error {
				tried.mu.Lock()
				defer tried.mu.Unlock()
				tried.at = append(tried.at, time.Now())
				return errors.New("the connection broke")
			}
		})
		away.start(nil)
		time.Sleep(20 * time.Second)
		at := tried.times()
		require.GreaterOrEqual(t, len(at), 5)
		require.LessOrEqual(t, len(at), 7)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i].Sub(at[i-1]), snapshotPause(i))
		}
		c.mustPut("y") // the others go on meanwhile
		c.net.set(func() { c.net.image = nil })
		time.Sleep(snapshotPauseMost)
		c.mustPut("z")
		require.Len(t, c.agree().Rows, 63)
	})
}

func TestSnapshotPause(t *testing.T) {
	require.Equal(t, snapshotPauseLeast, snapshotPause(1))
	require.Equal(t, 4*snapshotPauseLeast, snapshotPause(3))
	require.Equal(t, snapshotPauseMost, snapshotPause(1000))
}

// A leader that is deposed in the middle of sending gives the image up, so that the next leader's finds the receiver free.
func TestDeposedLeaderStopsSending(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, shortLog)
		away := aside(t, c)
		var tried sends
		c.net.set(func() {
			c.net.image = func(ctx context.Context) error {
				tried.mu.Lock()
				tried.at = append(tried.at, time.Now())
				tried.mu.Unlock()
				<-ctx.Done()
				tried.mu.Lock()
				defer tried.mu.Unlock()
				tried.ended = append(tried.ended, ctx.Err())
				return ctx.Err()
			}
		})
		old := c.leader()
		away.start(nil)
		for len(tried.times()) == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		c.net.set(func() { c.net.image = nil })
		var to uint64
		for _, m := range c.members {
			if m != old && m != away {
				to = m.id
			}
		}
		require.NoError(t, old.node.TransferLeader(t.Context(), to))
		synctest.Wait()
		tried.mu.Lock()
		ended := len(tried.ended)
		tried.mu.Unlock()
		require.Equal(t, 1, ended, "the deposed leader still sends")
		c.mustPut("z")
		require.Len(t, c.agree().Rows, 62)
		require.Equal(t, 1, away.state.installs)
	})
}
