package node

import (
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Observer is told what a node does, for metrics. It is called by the goroutine that does it and must not block.
type Observer interface {
	// Command tells how long a command took to be applied.
	Command(op apply.Op, failed bool, took time.Duration)
	// Applied tells what the commands of one round did.
	Applied(ops mvcc.Ops, leases []*feedv1.LeaseChange)
	// CompactStep tells how long a step of compaction held everything else up, Compacted how long the whole took, with its rests, and how
	// many revisions it dropped.
	CompactStep(took time.Duration)
	Compacted(took time.Duration, dropped int)
	// Installing tells that an image begins, or ends, to be made the state.
	Installing(now bool)
}

// unobserved is the Observer of a node that nobody looks at.
type unobserved struct{}

func (unobserved) Command(apply.Op, bool, time.Duration)   {}
func (unobserved) Applied(mvcc.Ops, []*feedv1.LeaseChange) {}
func (unobserved) CompactStep(time.Duration)               {}
func (unobserved) Compacted(time.Duration, int)            {}
func (unobserved) Installing(bool)                         {}

// listen has a machine tell of its commands and of who waits.
func (n *Node) listen(machine *apply.Machine) {
	machine.Waits = n.cfg.Waiting.Waits
	if n.cfg.Observer == (unobserved{}) {
		return // no look at the clock
	}
	machine.Applied = func(op apply.Op, failed bool) {
		now := time.Now()
		n.cfg.Observer.Command(op, failed, now.Sub(n.commandBegan))
		n.commandBegan = now
	}
}

// compaction is what one physical compaction did until now.
type compaction struct {
	began   time.Time
	dropped int
}

// step takes in one step.
func (c *compaction) step(observer Observer, began time.Time, dropped int, done bool) {
	now := time.Now()
	observer.CompactStep(now.Sub(began))
	if c.began.IsZero() {
		c.began = began
	}
	c.dropped += dropped
	if done {
		observer.Compacted(now.Sub(c.began), c.dropped)
		*c = compaction{}
	}
}
