package hub

import (
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// delivery is one interval's changes for registrations of one group on one stream.
type delivery struct {
	stream   *stream
	spec     match.Spec
	from, to int64
	ids      []uint64
	payload  *payload
	// held is what it counted when it was held.
	held int
}

func (d *delivery) message() *watchv1.Delivery {
	return &watchv1.Delivery{From: d.from, To: d.to, Registrations: d.ids, Revisions: d.payload.revisions}
}

const (
	deliveryBytes     = 64 // of a delivery beside its changes, about
	registrationBytes = 10 // an id at its longest
)

func (d *delivery) size() int { return deliveryBytes + registrationBytes*len(d.ids) + d.payload.size() }

// heldInterval is what of one interval waits for previous values, and the mark that must not pass it.
type heldInterval struct {
	deliveries []*delivery
	mark       int64
}

// accept matches an accepted interval for the live registrations. It is cut where futures begin, so that those join between
// two revisions and get nothing from before.
func (c *Core) accept(i window.Interval) {
	c.window.Append(i)
	revisions := i.Revisions
	for {
		r := c.futures.first()
		if r == nil || r.covered >= i.To {
			break
		}
		cut := 0
		for cut < len(revisions) && revisions[cut].GetRevision() <= r.covered {
			cut++
		}
		c.dispatch(r.covered, revisions[:cut])
		revisions = revisions[cut:]
		c.joinFutures()
	}
	c.dispatch(i.To, revisions)
	c.joinFutures()
}

func (c *Core) joinFutures() {
	for r := c.futures.first(); r != nil && r.covered <= c.position; r = c.futures.first() {
		c.futures.remove(r)
		c.join(r)
	}
}

// dispatch moves the live position.
func (c *Core) dispatch(to int64, revisions []*feedv1.Revision) {
	from, count := c.position, 0
	c.live.Match(revisions, func(g *match.Group, wanted []*feedv1.Revision) {
		payload := c.payload(g.Spec(), wanted)
		g.Streams(func(id uint64, ids []uint64) {
			count++
			c.deliverLive(&delivery{
				stream: c.streams[id], spec: g.Spec(), from: from, to: to, ids: ids, payload: payload,
			})
		})
	})
	for _, refused := range c.overflowed {
		c.overflow(refused.stream, refused.ids)
	}
	c.overflowed = c.overflowed[:0]
	c.position = to
	for _, st := range c.streams {
		if len(st.regs) > 0 { // the others hear it at the next Tick
			c.mark(st, to)
		}
	}
	c.dispatched = append(c.dispatched, Dispatched{From: from, To: to, Revisions: revisions, Deliveries: count})
}

// deliverLive puts a delivery into its stream's queue, or holds it back while it, or an earlier one of the same group,
// waits for previous values.
func (c *Core) deliverLive(d *delivery) {
	st := d.stream
	switch {
	case d.payload.missing == 0 && st.heldGroups[d.spec] == 0:
		if !st.queue.Deliver(d.message(), true, d.size()) {
			c.overflowed = append(c.overflowed, refusal{st, d.ids})
		}
	case st.heldBytes >= c.limits.HeldBytes:
		c.overflowed = append(c.overflowed, refusal{st, d.ids})
	default:
		st.current = append(st.current, d)
		st.heldGroups[d.spec]++
		d.held = d.size()
		st.heldBytes += d.held
	}
}

// mark ends an interval for a stream: everything up to the position has been put in, or is held.
func (c *Core) mark(st *stream, position int64) {
	switch {
	case len(st.current) > 0:
		st.held = append(st.held, heldInterval{deliveries: st.current, mark: position})
		st.current = nil
	case len(st.held) > 0:
		st.held[len(st.held)-1].mark = position
	default:
		st.queue.Mark(position)
	}
}

// release puts in what was held and is complete now, in order.
func (c *Core) release(st *stream) {
	for len(st.held) > 0 {
		for _, d := range st.held[0].deliveries {
			if d.payload.missing > 0 {
				return
			}
		}
		front := st.held[0]
		st.held[0] = heldInterval{}
		st.held = st.held[1:]
		for _, d := range front.deliveries {
			st.heldBytes -= d.held
			if st.heldGroups[d.spec]--; st.heldGroups[d.spec] == 0 {
				delete(st.heldGroups, d.spec)
			}
			if d.ids = st.present(d.ids); len(d.ids) > 0 && !st.queue.Deliver(d.message(), true, d.size()) {
				c.overflow(st, d.ids)
			}
		}
		st.queue.Mark(front.mark)
	}
}

// present leaves of the ids those that are still registered: what was given up while a delivery was held must not get it, as it
// may have missed the one before.
func (st *stream) present(ids []uint64) []uint64 {
	gone := func(id uint64) bool { return st.regs[id] == nil }
	if !slices.ContainsFunc(ids, gone) {
		return ids
	}
	return slices.DeleteFunc(slices.Clone(ids), gone)
}

// overflow gives registrations up whose changes found no room: the proxy registers them anew from where it stands.
func (c *Core) overflow(st *stream, ids []uint64) {
	for _, id := range ids {
		if r := st.regs[id]; r != nil {
			c.remove(r)
			st.queue.End(&watchv1.Ended{Id: id, Reason: ReasonOverflow})
		}
	}
}
