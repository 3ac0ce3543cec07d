package owner

import (
	"errors"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
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

// stopsMax bounds the leases that are stopped at a time.
const stopsMax = 1 << 16

// ErrStops says that too many leases are stopped.
var ErrStops = errors.New("owner: too many leases are being revoked")

// KeepAlive renews a lease at now and gives its TTL in seconds if the verdict is Known.
func (c *Core) KeepAlive(now time.Duration, id int64) (Verdict, int64) {
	lease, verdict := c.judge(now, id)
	if verdict != Known {
		return verdict, 0
	}
	if lease.State != expiry.Live {
		return Wait, 0
	}
	if lease.RemainingS > 0 {
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

// Stop makes leases refuse keepalives until their revoke is known to have happened or to have come to nothing. It gives
// those that others own. pending says that some cannot be promised yet, because an expiry of them is under way or because
// the instance has no right at now and so does not know who has; call again when something changed. An error is ErrStops; the
// leases before the one that did not fit are stopped.
func (c *Core) Stop(now time.Duration, ids []int64) (notOwned []int64, pending bool, err error) {
	if !c.loaded || !c.Holds(now) {
		return nil, true, nil
	}
	for _, id := range ids {
		if !c.history.Mine(id) {
			notOwned = append(notOwned, id)
			continue
		}
		if _, again := c.stops[id]; !again && len(c.stops) >= stopsMax {
			return notOwned, pending, ErrStops
		}
		c.stops[id] = now
		c.clocks.Stop(id)
		if lease, ok := c.clocks.Get(id); ok && lease.State == expiry.Deciding {
			pending = true
		}
	}
	return notOwned, pending, nil
}

// Stopped lists up to limit leases that were stopped at or before a time and whose revoke has not come since.
func (c *Core) Stopped(before time.Duration, limit int) []int64 {
	var ids []int64
	for id, at := range c.stops {
		if at <= before && len(ids) < limit {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Resume ends the stop of a lease, as a read at a sequence found it: exists says whether it is there. Only a read that began
// when no revoke could be on its way any more may end it. A read that is ahead of the table changes nothing yet.
func (c *Core) Resume(before time.Duration, id int64, exists bool, sequence uint64) {
	if at, ok := c.stops[id]; !ok || at > before || sequence > c.sequence {
		return
	}
	delete(c.stops, id)
	if exists {
		c.clocks.Resume(id)
	}
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
