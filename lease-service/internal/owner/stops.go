package owner

import (
	"errors"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
)

const (
	// stopsMax bounds the stops at a time.
	stopsMax = 1 << 16
	// StoppedFor is how long a stop holds of whose revoke nothing more is heard: longer than a node tries to get one through.
	StoppedFor = 10 * time.Second
)

// ErrStops says that too many leases are being revoked.
var ErrStops = errors.New("owner: too many leases are being revoked")

// stop is a client's revoke that may be under way.
type stop struct {
	ticket uint64
	// granted tells the lease that was meant from a later one of its id.
	granted uint64
	// at is when it was last announced; over is when its proxy said that it came to nothing, 0 if it did not.
	at, over time.Duration
}

// due tells whether a read that began at a time may end the stop.
func (s stop) due(began time.Duration) bool {
	return s.over > 0 && s.over <= began || s.at <= began-StoppedFor
}

// Stop makes a lease refuse keepalives until the revoke of the ticket is known to have happened or to have come to nothing, if
// the verdict is Known. Wait also says that an expiry is under way, which could otherwise meet a lease granted anew, or that another may
// still acknowledge its keepalives. Each revoke has a stop of its own, which counts until its own end. The error is ErrStops.
func (c *Core) Stop(now time.Duration, id int64, ticket uint64) (Verdict, error) {
	lease, verdict := c.judge(now, id)
	switch {
	case verdict != Known:
		return verdict, nil
	case lease.State == expiry.Deciding:
		return Wait, nil
	case c.Epoch() > 1 && now < c.history.Settled(id):
		return Wait, nil // a former owner may go on to acknowledge; under the first view there is none
	}
	stops := c.stops[id]
	if i := slices.IndexFunc(stops, func(s stop) bool { return s.ticket == ticket }); i >= 0 {
		stops[i].at = now
		return Known, nil
	}
	if c.stopping >= stopsMax {
		return Wait, ErrStops
	}
	c.stopping++
	c.stops[id] = append(stops, stop{ticket: ticket, granted: lease.Granted, at: now})
	c.clocks.Stop(id)
	return Known, nil
}

// Over says that the revoke of a ticket has come to nothing, and that nothing of it is under way.
func (c *Core) Over(now time.Duration, id int64, ticket uint64) {
	stops := c.stops[id]
	if i := slices.IndexFunc(stops, func(s stop) bool { return s.ticket == ticket }); i >= 0 {
		stops[i].over = now
	}
}

// Stopped lists up to limit leases with stops that a read which begins now may end.
func (c *Core) Stopped(now time.Duration, limit int) []int64 {
	var ids []int64
	for id, stops := range c.stops {
		if len(ids) < limit && slices.ContainsFunc(stops, func(s stop) bool { return s.due(now) }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Resume ends the stops of a lease that a read may end which began at a time, and showed the tier as of a sequence. One that is
// ahead of the table changes nothing yet: the table is to tell whether the lease is there.
func (c *Core) Resume(began time.Duration, id int64, sequence uint64) {
	if sequence > c.sequence {
		return
	}
	c.keep(id, slices.DeleteFunc(slices.Clone(c.stops[id]), func(s stop) bool {
		if s.due(began) && s.over == 0 && c.spent[id] > 0 {
			c.spent[id]-- // it may be the one whose revoke has happened
		}
		return s.due(began)
	}))
}

// keep makes stops those of a lease; they are some of those that it has. As soon as all of them have had their revokes it goes on.
func (c *Core) keep(id int64, stops []stop) {
	if len(stops) <= c.spent[id] {
		stops = nil
	}
	c.stopping -= len(c.stops[id]) - len(stops)
	if len(stops) == 0 {
		delete(c.stops, id)
		delete(c.spent, id)
		c.clocks.Resume(id)
		return
	}
	c.stops[id] = stops
}

// revokedByClient notes that one of a lease's stops, nobody knows which, has had its revoke: the others' may still be under way, and
// meet a lease that is granted anew.
func (c *Core) revokedByClient(id int64) {
	if stops := c.stops[id]; len(stops) > 0 {
		c.spent[id]++
		c.keep(id, stops)
	}
}

// loadedStops ends the stops that a table shows to have had their revokes: its lease is gone, or another took its place.
func (c *Core) loadedStops() {
	for id, stops := range c.stops {
		switch lease, ok := c.clocks.Get(id); {
		case !ok:
			c.keep(id, nil)
		case lease.Granted != stops[0].granted:
			c.revokedByClient(id)
			c.regranted(id, lease.Granted)
		}
	}
}

// regranted has the stops of an id hold the lease that was granted under it after the one that they were for.
func (c *Core) regranted(id int64, granted uint64) {
	for i := range c.stops[id] {
		c.stops[id][i].granted = granted
	}
}

// stopAgain holds a lease whose clock starts or goes on while stops of it hold.
func (c *Core) stopAgain(id int64) {
	if len(c.stops[id]) > 0 {
		c.clocks.Stop(id)
	}
}
