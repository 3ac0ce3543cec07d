package owner

import (
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Verdict is what to answer about a lease now.
type Verdict uint8

// The verdicts.
const (
	// Known: a keepalive renewed the lease; a question for its rest has an answer.
	Known Verdict = iota
	// NotOwner: another instance owns it under the newest view known here.
	NotOwner
	// Unknown: there is no such lease in the table. That must be proved by a read that begins after the question arrived.
	Unknown
	// Wait: nothing may be said now; ask again when something changed.
	Wait
)

// KeepAlive renews a lease at now and gives its TTL in seconds if the verdict is Known.
func (c *Core) KeepAlive(now time.Duration, id int64) (Verdict, int64) {
	lease, verdict := c.judge(now, id)
	if verdict != Known {
		return verdict, 0
	}
	if lease.State != expiry.Live {
		return Wait, 0
	}
	if lease.RemainingS > 0 || lease.Recording {
		// Before a keepalive is acknowledged the checkpoint that shortened the rest is cleared: an owner to come would go by it.
		c.clears[id] = true
		return Wait, 0
	}
	c.clocks.Renew(id, expiry.Deadline(now, lease.TTLS))
	return Known, lease.TTLS
}

// Remaining gives the rest of a lease in whole seconds if the verdict is Known.
func (c *Core) Remaining(now time.Duration, id int64) (Verdict, int64) {
	lease, verdict := c.judge(now, id)
	if verdict != Known {
		return verdict, 0
	}
	// The deadline may lie later than the TTL says, for what a former owner may have acknowledged; a client is told no more
	// than a fresh renewal would give it.
	return Known, min(restS(now, lease.Deadline), max(0, lease.TTLS-1))
}

// judge says whether anything may be said about a lease at now.
func (c *Core) judge(now time.Duration, id int64) (expiry.Lease, Verdict) {
	lease, ok := c.clocks.Get(id)
	if !ok || lease.State == expiry.Foreign {
		owner, known := c.history.Owner(id)
		switch {
		case !c.loaded || !known:
			return lease, Wait
		case owner != c.self:
			return lease, NotOwner
		case !ok:
			return lease, Unknown
		}
		return lease, Wait
	}
	switch {
	case lease.State == expiry.Gone:
		return lease, Unknown
	case !c.Holds(now):
		return lease, Wait
	}
	return lease, Known
}

// Clears lists up to limit leases whose checkpoints must be cleared, with the epoch to sign that with.
func (c *Core) Clears(limit int) (epoch uint64, ids []int64) {
	for id := range c.clears {
		if len(ids) < limit {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return c.Epoch(), ids
}

// Rests takes up to limit leases whose rests are to be recorded at now, signed with the epoch and the sequence of the table by which they
// were reckoned. Until the table tells of it, or of a clearing, no keepalive of theirs is acknowledged: whoever owned them next would
// go by the rest.
func (c *Core) Rests(now time.Duration, limit int) (epoch, sequence uint64, rests []*feedv1.LeaseCheckpoint) {
	if !c.loaded || !c.Holds(now) {
		return 0, 0, nil
	}
	c.clocks.Rests(now, limit, func(lease expiry.Lease) {
		// Rounded up: the rest may be told too long, never too short.
		rest := int64((lease.Deadline - now + time.Second - 1) / time.Second)
		rests = append(rests, &feedv1.LeaseCheckpoint{Id: lease.ID, RemainingTtlS: min(rest, lease.TTLS)})
	})
	return c.Epoch(), c.sequence, rests
}
