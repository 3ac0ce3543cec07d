package raftnode

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
)

// Counts are what went slowly or not at all since the start.
type Counts struct {
	// SlowReads are the questions for a read index that had no answer after half an election timeout, FailedReads those who ran out of
	// time before there was one.
	SlowReads, FailedReads uint64
	// LateHeartbeats are the heartbeats that this node as leader sent more than two ticks after the ones before.
	LateHeartbeats uint64
}

type counters struct{ slowReads, failedReads, lateHeartbeats atomic.Uint64 }

// Counts returns the counts up to now. It takes no part in the loop and is cheap.
func (n *Node) Counts() Counts {
	c := &n.counters
	return Counts{SlowReads: c.slowReads.Load(), FailedReads: c.failedReads.Load(), LateHeartbeats: c.lateHeartbeats.Load()}
}

// countRead looks at why a reader stopped waiting.
func (n *Node) countRead(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		n.counters.failedReads.Add(1)
	}
	return err
}

// countHeartbeat looks at the clock when heartbeats go out.
func (n *Node) countHeartbeat() {
	l := &n.loop
	if n.cfg.Ticks != nil || n.stepper != nil {
		return // no clock of its own
	}
	if l.state != raft.StateLeader {
		l.heartbeat = time.Time{}
		return
	}
	now := time.Now()
	if !l.heartbeat.IsZero() && now.Sub(l.heartbeat) > 2*n.cfg.Tick {
		n.counters.lateHeartbeats.Add(uint64(l.others))
	}
	l.heartbeat = now
}
