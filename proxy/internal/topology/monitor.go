package topology

import (
	"context"
	"sync"
	"time"
)

// leaderlessElections is how many election timeouts without a leader end the streams that require one, as in etcd.
const leaderlessElections = 3

// Monitor tells the streams that require a leader when there has been none for too long. Its methods may be called from
// any goroutine.
type Monitor struct {
	follower *Follower
	election time.Duration

	mu   sync.Mutex
	lost chan struct{}
}

// NewMonitor makes a Monitor; election is the election timeout of the cluster.
func NewMonitor(follower *Follower, election time.Duration) *Monitor {
	return &Monitor{follower: follower, election: election, lost: make(chan struct{})}
}

// Lost gives a channel that is closed once the leader has been missing for three election timeouts.
func (m *Monitor) Lost() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lost
}

// Run watches until the context ends.
func (m *Monitor) Run(ctx context.Context) {
	ticker := time.NewTicker(m.election)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if m.follower.LeaderlessFor() < leaderlessElections*m.election {
			continue
		}
		// Streams that come later are refused at once while there is no leader, so the next channel is theirs.
		m.mu.Lock()
		close(m.lost)
		m.lost = make(chan struct{})
		m.mu.Unlock()
	}
}
