package owner

import (
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

const (
	// TickEvery is the longest time between two calls of Tick.
	TickEvery = 100 * time.Millisecond
	// After an outage, which is a time of at least outage without the right to acknowledge, nothing is decided for reprieve: leases that
	// ran out meanwhile belong to clients that could not renew them, and the keepalives of those that live come first.
	outage   = time.Second
	reprieve = time.Second
)

// Decision is leases to expire, signed with the epoch under which that was decided and the lease sequence of the table by which
// it was: it says nothing of leases that are granted later under the same ids.
type Decision struct {
	Epoch    uint64
	Sequence uint64
	IDs      []int64
}

// Tick tells that time passes. A tick that comes late by more than the margin for drift takes the right away until another
// heartbeat is confirmed: who was not running cannot vouch for its clock. late says so.
func (c *Core) Tick(now time.Duration) (late bool) {
	late = c.ticked > 0 && now-c.ticked > TickEvery+c.right.Margin(c.history.Removal())
	c.ticked = now
	if late {
		c.right.Void(now)
	}
	return late
}

// Decide decides to expire up to limit leases that ran out. It decides nothing without the right to acknowledge, nor from a
// table that is behind what the last confirmed heartbeat told: a lease that ran out in it may have been granted anew, and the
// decision would only be rejected. Nor does it just after an outage.
func (c *Core) Decide(now time.Duration, limit int) Decision {
	if !c.loaded || !c.Holds(now) || c.sequence < c.right.Sequence() || now < c.reprieved {
		return Decision{}
	}
	return Decision{Epoch: c.Epoch(), Sequence: c.sequence, IDs: c.clocks.Due(now, limit)}
}

// Standing tells whether a decision still needs an outcome. Under another epoch it was rejected or will be.
func (c *Core) Standing(d Decision) bool { return d.Epoch == c.Epoch() }

// Outcome takes in what became of a decision, in the order of its leases.
func (c *Core) Outcome(now time.Duration, d Decision, outcomes []consensusv1.ExpireOutcome) {
	if !c.Standing(d) {
		return
	}
	for i, id := range d.IDs {
		if i >= len(outcomes) {
			return
		}
		// A lease that was granted since is another one, about which another decision may be under way.
		lease, ok := c.clocks.Get(id)
		same := ok && lease.Granted <= d.Sequence
		switch outcomes[i] {
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED, consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND:
			if same {
				c.clocks.Settle(id)
			}
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER:
			// The epoch may have moved on, and then nothing more may be said under this one.
			c.right.Void(now)
			if same && c.clocks.Undecide(id) {
				c.stopAgain(id)
			}
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_UNSPECIFIED:
		}
	}
}

// Next is when Decide may have something to decide; ok is false if no clock runs.
func (c *Core) Next() (at time.Duration, ok bool) { return c.clocks.Next() }

// Overdue is how many leases Decide could decide upon at now, about: some of them were renewed. It looks at each of them.
func (c *Core) Overdue(now time.Duration) int { return c.clocks.Overdue(now) }

// Lease gives what is known of a lease.
func (c *Core) Lease(id int64) (expiry.Lease, bool) { return c.clocks.Get(id) }
