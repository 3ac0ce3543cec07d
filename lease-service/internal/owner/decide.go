package owner

import (
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// TickEvery is the longest time between two calls of Tick.
const TickEvery = 100 * time.Millisecond

// Decision is leases to expire, signed with the epoch under which that was decided.
type Decision struct {
	Epoch uint64
	IDs   []int64
}

// Tick tells that time passes. A tick that comes late by more than the margin for drift takes the right away until another
// heartbeat is confirmed: who was not running cannot vouch for its clock. late says so.
func (c *Core) Tick(now time.Duration) (late bool) {
	late = c.ticked > 0 && now-c.ticked > TickEvery+ownership.Margin(c.history.Removal())
	c.ticked = now
	if late {
		c.right.Void(now)
	}
	return late
}

// Decide decides to expire up to limit leases that ran out. It decides nothing without the right to acknowledge, nor from a
// table that is behind what the last confirmed heartbeat told: a lease that ran out in it may have been granted anew.
func (c *Core) Decide(now time.Duration, limit int) Decision {
	if !c.loaded || !c.Holds(now) || c.sequence < c.right.Sequence() {
		return Decision{}
	}
	return Decision{Epoch: c.Epoch(), IDs: c.clocks.Due(now, limit)}
}

// Standing tells whether a decision still needs an outcome. Under another epoch it was rejected or will be.
func (c *Core) Standing(d Decision) bool { return d.Epoch == c.Epoch() }

// Outcome takes in what became of a decision, in the order of its leases, at the lease sequence that came with it.
func (c *Core) Outcome(now time.Duration, d Decision, outcomes []consensusv1.ExpireOutcome, sequence uint64) {
	c.outcome = max(c.outcome, sequence)
	if !c.Standing(d) {
		return
	}
	for i, id := range d.IDs {
		if i >= len(outcomes) {
			return
		}
		switch outcomes[i] {
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED, consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND:
			c.clocks.Settle(id)
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER:
			// The epoch has moved on, so nothing more may be said under this one.
			c.right.Void(now)
			if c.clocks.Undecide(id) {
				c.stopAgain(id)
			}
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_UNSPECIFIED:
		}
	}
}

func (c *Core) stopAgain(id int64) {
	if _, stopped := c.stops[id]; stopped {
		c.clocks.Stop(id)
	}
}

// Next is when Decide may have something to decide; ok is false if no clock runs.
func (c *Core) Next() (at time.Duration, ok bool) { return c.clocks.Next() }

// Lease gives what is known of a lease.
func (c *Core) Lease(id int64) (expiry.Lease, bool) { return c.clocks.Get(id) }
