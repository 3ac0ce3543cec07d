package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// leaderKills is how often a run kills the leader.
	leaderKills = 5
	// retryTimeout is for one call of the client that writes through failovers: after it, or an error, the next endpoint is asked
	// at once.
	retryTimeout = 100 * time.Millisecond
	// afterwards is how long a window goes on once there is a new leader and a write through it: writes may stop once more.
	afterwards = time.Second
)

// retrying is a load of one client that writes without pause: each call has little time, and one that fails is followed by the
// next endpoint's at once. What may have happened is not asked: every call is a new put. Errors end nothing; the steps beside
// the load notice when no write comes through any more.
func retrying(ctx context.Context, t *target, _ int, m *meter) error {
	v := value(rand.New(rand.NewPCG(4, 0)), valueBytes)
	for at := 0; ctx.Err() == nil; {
		began := time.Now()
		calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), retryTimeout)
		_, err := pb.NewKVClient(t.conn(at)).Put(calling, &pb.PutRequest{Key: keyAt(0), Value: v})
		cancel()
		if err != nil {
			m.failed(err)
			at++
			continue
		}
		now := time.Now()
		m.gaps.acknowledged(began, now)
		m.record(now.Sub(began))
	}
	return nil
}

// gaps is how long nothing was acknowledged. The zero value has seen nothing.
type gaps struct {
	mu          sync.Mutex
	began, last time.Time // of the latest acknowledged write
	longest     time.Duration
}

// acknowledged takes a write that was sent and acknowledged at these times. Only one goroutine calls it.
func (g *gaps) acknowledged(began, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.last.IsZero() {
		g.longest = max(g.longest, at.Sub(g.last))
	}
	g.began, g.last = began, at
}

// take gives the longest time between two writes acknowledged one after the other, the later of them since the last take.
func (g *gaps) take() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	longest := g.longest
	g.longest = 0
	return longest
}

// sentSince says whether a write was acknowledged that was sent at the time or later.
func (g *gaps) sentSince(at time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.last.IsZero() && !g.began.Before(at)
}

// failovers kills the leader some times and notes the longest gap around each. It is started again, and level, before the next.
func failovers(ctx context.Context, st *stage) error {
	for n := range leaderKills {
		if err := failover(ctx, st); err != nil {
			return fmt.Errorf("failover %d of %d: %w (the client's last error: %w)", n+1, leaderKills, err, st.meter.lastError())
		}
	}
	return nil
}

func failover(ctx context.Context, st *stage) error {
	if err := st.writing(ctx); err != nil {
		return err
	}
	if err := pause(ctx, st.warmup); err != nil {
		return err
	}
	leader, err := st.nodes.leader(ctx, st.nodes.names)
	if err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	st.meter.gaps.take() // what was before
	if err := st.nodes.kill(ctx, leader); err != nil {
		return err
	}
	next, err := st.nodes.leader(ctx, st.nodes.but(leader))
	if err != nil {
		return err
	}
	if err := st.writing(ctx); err != nil {
		return err
	}
	if err := pause(ctx, afterwards); err != nil {
		return err
	}
	if err := st.writing(ctx); err != nil { // a gap that has begun counts whole
		return err
	}
	st.gaps = append(st.gaps, st.meter.gaps.take())
	if err := st.shut(); err != nil {
		return err
	}
	if err := st.nodes.start(ctx, leader); err != nil {
		return err
	}
	return st.nodes.level(ctx, leader, next)
}

// writing waits until a write is acknowledged that is sent from now on.
func (st *stage) writing(ctx context.Context) error {
	now := time.Now()
	return await(ctx, func() error {
		if !st.meter.gaps.sentSince(now) {
			return fmt.Errorf("no write is acknowledged for %v", time.Since(now).Round(time.Millisecond))
		}
		return nil
	})
}
