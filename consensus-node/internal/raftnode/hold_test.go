package raftnode

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

// slowTicks leaves time between two ticks for what is held to go, or not to go, for another reason.
func slowTicks(hold time.Duration) func(*Config) {
	return func(c *Config) { c.Tick, c.ElectionTicks, c.CommitHold = 10*time.Second, 2, hold }
}

// A commit index waits for the next entries: a writer who goes on costs its followers one message for each write.
func TestCommitIndexTravelsWithTheNextEntries(t *testing.T) {
	for name, most := range map[time.Duration]int{0: 1000, 5 * time.Second: 2} {
		t.Run(fmt.Sprint("hold ", name), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := newCluster(t, 1, 3, slowTicks(name))
				c.mustPut("first")
				time.Sleep(15 * time.Second)
				alone := 0
				c.net.set(func() {
					c.net.filter = func(m *raftpb.Message) bool {
						if m.GetType() == raftpb.MsgApp && len(m.GetEntries()) == 0 {
							alone++
						}
						return true
					}
				})
				const puts = 20
				for i := range puts {
					c.mustPut(fmt.Sprint("v", i))
				}
				c.net.set(func() { require.LessOrEqual(t, alone, most) })
				if most >= puts {
					c.net.set(func() { require.GreaterOrEqual(t, alone, puts, "without a hold each goes alone") })
				}
				require.Len(t, c.agree().Rows, puts+1, "the last one goes alone in the end")
			})
		})
	}
}

// Who is asked for a read index hears of the commit at once, however long it may be held.
func TestReadIndexBringsWhatIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, slowTicks(9*time.Second))
		c.mustPut("first")
		time.Sleep(25 * time.Second)
		leader := c.leader()
		index := c.mustPut("second")
		follower := c.members[0]
		if follower == leader {
			follower = c.members[1]
		}
		time.Sleep(10 * time.Millisecond) // the leader tells of a commit whom it knows to have the entry
		require.Less(t, follower.state.snapshot().Index, index, "it has not heard of it")
		begun := time.Now()
		got, err := follower.node.ReadIndex(t.Context())
		require.NoError(t, err)
		require.GreaterOrEqual(t, got, index)
		_, err = follower.state.await(t.Context(), index)
		require.NoError(t, err)
		require.Less(t, time.Since(begun), time.Second)
	})
}

// A follower beside which somebody watches says so with its acknowledgements, and hears of each commit at once; the others do not.
func TestEagerFollowerHearsOfCommitsAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var eager atomic.Uint64 // the member that is
		c := newCluster(t, 1, 3, func(cfg *Config) {
			slowTicks(5 * time.Second)(cfg)
			id := cfg.ID
			cfg.Eager = func() bool { return eager.Load() == id }
		})
		c.mustPut("first")
		time.Sleep(25 * time.Second)
		leader := c.leader()
		var followers []*member
		for _, m := range c.members {
			if m != leader {
				followers = append(followers, m)
			}
		}
		heard := func(m *member, index uint64) bool {
			time.Sleep(10 * time.Millisecond)
			return m.state.snapshot().Index >= index
		}
		require.False(t, heard(followers[0], c.mustPut("second")))
		eager.Store(followers[0].node.cfg.ID)
		index := c.mustPut("third") // the leader may have committed it before it heard
		require.True(t, heard(followers[0], index), "what was held goes with the word")
		for i := range 3 {
			index = c.mustPut(fmt.Sprint("v", i))
			require.True(t, heard(followers[0], index))
			require.False(t, heard(followers[1], index))
		}
		eager.Store(0)
		c.mustPut("last but one") // the word goes with its acknowledgement
		require.False(t, heard(followers[0], c.mustPut("last")))
	})
}
