package raftnode

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

const testTick = 100 * time.Millisecond

// redialEvery is how often a transport finds out again.
const redialEvery = 30 * time.Millisecond

// refusing has all members hear, again and again, that an address refuses connections, until stop is called.
func (c *cluster) refusing(id uint64) (stop func()) {
	done := make(chan struct{})
	go func() {
		for {
			for _, m := range c.members {
				if node := c.net.node(m.id); node != nil && m.id != id {
					node.ReportGone(id)
				}
			}
			select {
			case <-time.After(redialEvery):
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// Whoever sees that the leader's process is gone does not wait for an election timeout.
func TestAGoneLeaderIsSucceededAtOnce(t *testing.T) {
	for _, size := range []int{2, 3, 5} {
		for seed := range uint64(20) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, seed, size, nil)
				c.mustPut("first")
				time.Sleep(3 * testTick)
				leader := c.leader()
				require.NoError(t, leader.crash())
				began := time.Now()
				stop := c.refusing(leader.id)
				if size == 2 { // nobody can succeed, and nobody tries for ever
					time.Sleep(30 * testTick)
					for _, m := range c.members {
						if m != leader {
							require.Zero(t, m.node.Status().Leader)
						}
					}
				} else {
					require.NotEqual(t, leader, c.leader())
					require.Less(t, time.Since(began), (quietTicks+time.Duration(size)+1)*testTick, "size %d seed %d", size, seed)
				}
				stop()
				leader.start(nil)
				c.mustPut("second")
				require.Len(t, c.agree().Rows, 2)
			})
		}
	}
}

// A leader that is heard of stays, whatever a member's connections to it come to.
func TestALeaderThatSpeaksStays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("first")
		time.Sleep(3 * testTick)
		leader := c.leader()
		term := leader.node.Status().Term
		votes := 0
		c.net.set(func() {
			c.net.filter = func(m *raftpb.Message) bool {
				if m.GetType() == raftpb.MsgPreVote {
					votes++
				}
				return true
			}
		})
		stop := c.refusing(leader.id)
		defer stop()
		for range 300 {
			time.Sleep(testTick / 7)
			for _, m := range c.members {
				require.Equal(t, leader.id, m.node.Status().Leader)
				require.Equal(t, term, m.node.Status().Term)
			}
		}
		c.net.set(func() { require.Zero(t, votes) })
	})
}

// One member that believes the leader gone, and does not hear of it either, disturbs nobody: the others have not forgotten it.
func TestOneMemberAloneElectsNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("first")
		leader := c.leader()
		term := leader.node.Status().Term
		var lonely *member
		for _, m := range c.members {
			if m != leader {
				lonely = m
			}
		}
		c.net.set(func() {
			c.net.cut[[2]uint64{leader.id, lonely.id}], c.net.cut[[2]uint64{lonely.id, leader.id}] = true, true
		})
		for range 300 {
			lonely.node.ReportGone(leader.id)
			time.Sleep(testTick / 3)
			require.Equal(t, leader, c.leader())
			require.Equal(t, term, leader.node.Status().Term)
		}
		c.mustPut("second")
		c.net.heal()
		require.Len(t, c.agree().Rows, 2)
	})
}
