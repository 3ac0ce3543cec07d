package raftnode

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// history is what clients were told.
type history struct {
	mu    sync.Mutex
	acked map[uint64]string // index to value
	top   atomic.Uint64     // highest acknowledged index
}

func (h *history) ack(index uint64, value string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[index] = value
	h.top.Store(max(h.top.Load(), index))
}

// TestRandomFaults runs writers and readers against three members whose network loses, delays and repeats messages, while members are
// killed and cut off. Every acknowledged write must stand where it was acknowledged, on all members, and no read index may lie below a
// write that was acknowledged before the read began.
func TestRandomFaults(t *testing.T) {
	seed := testSeed(t)
	for round := range uint64(2) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			bubble(t, func(t *testing.T) { randomRun(t, seed+round) })
		})
	}
}

func randomRun(t *testing.T, seed uint64) {
	c := newCluster(t, seed, 3, shortLog)
	c.net.set(func() {
		c.net.faults = faults{drop: 0.05, duplicate: 0.05, delayMin: time.Millisecond, delayMax: 60 * time.Millisecond}
	})
	h := &history{acked: map[uint64]string{}}
	ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
	defer cancel()
	var clients sync.WaitGroup
	var wrote, read atomic.Int64
	for client := range 4 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				for _, m := range c.members { // only the leader takes it
					short, stop := context.WithTimeout(ctx, time.Second)
					value := fmt.Sprint(client, ".", i, ".", m.id)
					if index, err := m.put(short, value); err == nil {
						h.ack(index, value)
						wrote.Add(1)
					}
					stop()
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if n := c.net.node(uint64((client+i)%3 + 1)); n != nil {
					short, stop := context.WithTimeout(ctx, time.Second)
					floor := h.top.Load()
					if index, err := n.ReadIndex(short); err == nil {
						read.Add(1)
						if index < floor {
							t.Errorf("a read got index %d after %d was acknowledged", index, floor)
						}
					}
					stop()
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	breakThings(ctx, c, rand.New(rand.NewPCG(seed, 2)))
	clients.Wait()
	c.net.set(func() { c.net.faults.drop = 0 })
	c.net.heal()
	c.mustPut("end")
	rows := c.agree().Rows
	at := map[uint64]string{}
	seen := map[string]bool{}
	for _, r := range rows {
		require.False(t, seen[r.Value], "%s was applied twice", r.Value)
		at[r.Index], seen[r.Value] = r.Value, true
	}
	for index, value := range h.acked {
		require.Equal(t, value, at[index], "acknowledged at %d", index)
	}
	require.Greater(t, wrote.Load(), int64(100))
	require.Greater(t, read.Load(), int64(100))
}

// breakThings kills and cuts off members, at most one at a time for most of the time, all at once now and then, until ctx ends; then all are up.
func breakThings(ctx context.Context, c *cluster, r *rand.Rand) {
	pause := func(most time.Duration) { time.Sleep(time.Duration(r.Int64N(int64(most)))) }
	for ctx.Err() == nil {
		m := c.members[r.IntN(len(c.members))]
		switch r.IntN(4) {
		case 0:
			require.NoError(c.t, m.crash())
			pause(5 * time.Second)
			m.start(nil) //nolint:contextcheck // members outlive the clients
		case 1:
			c.net.isolate(m.id)
			pause(4 * time.Second)
			c.net.heal()
		case 2:
			c.net.set(func() { c.net.cut[[2]uint64{m.id, m.id%3 + 1}] = true }) // one way
			pause(3 * time.Second)
			c.net.heal()
		case 3:
			for _, m := range c.members {
				require.NoError(c.t, m.crash())
			}
			pause(time.Second)
			for _, m := range c.members {
				m.start(nil) //nolint:contextcheck // members outlive the clients
			}
		}
		pause(3 * time.Second)
	}
}
