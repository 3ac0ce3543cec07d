package hub

import (
	"slices"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
)

// payload is what a group wants of an interval; it is shared by the group's deliveries.
type payload struct {
	revisions []*feedv1.Revision
	// missing counts the previous values that are being looked up.
	missing int
	bytes   int
}

const eventBytes = 32 // of an event beside its keys and values, about

func (p *payload) size() int {
	if p.bytes == 0 {
		for _, r := range p.revisions {
			for _, e := range r.GetEvents() {
				p.bytes += eventBytes + len(e.GetKey()) + len(e.GetKv()) + len(e.GetPreviousKv())
			}
		}
	}
	return p.bytes
}

type keyAt struct {
	key      string
	revision int64
}

// waiter is an event that waits for its previous value. The event is the payload's own.
type waiter struct {
	payload *payload
	event   *feedv1.Event
}

// payload makes what a group gets of the revisions that it wants. Where the group wants previous values and an event does not
// carry its own, the event is copied and filled from the window, or marked as missing and looked up.
func (c *Core) payload(spec match.Spec, revisions []*feedv1.Revision) *payload {
	p := &payload{revisions: revisions}
	if !spec.PreviousKV {
		return p
	}
	copied := false
	for i, r := range revisions {
		if !slices.ContainsFunc(r.GetEvents(), lacksPrevious) {
			continue
		}
		if !copied {
			p.revisions, copied = slices.Clone(revisions), true
		}
		p.revisions[i] = c.fill(p, r)
	}
	return p
}

func lacksPrevious(e *feedv1.Event) bool {
	return e.GetPreviousModRevision() > 0 && len(e.GetPreviousKv()) == 0
}

// fill copies a revision and finds the previous values of its events.
func (c *Core) fill(p *payload, r *feedv1.Revision) *feedv1.Revision {
	filled := &feedv1.Revision{
		Revision: r.GetRevision(), Events: make([]*feedv1.Event, len(r.GetEvents())),
		SpanContext: r.GetSpanContext(), AppliedUnixNs: r.GetAppliedUnixNs(),
	}
	for i, e := range r.GetEvents() {
		filled.Events[i] = e
		if !lacksPrevious(e) {
			continue
		}
		own := &feedv1.Event{Key: e.GetKey(), Deleted: e.GetDeleted(), Kv: e.GetKv(), PreviousModRevision: e.GetPreviousModRevision()}
		filled.Events[i] = own
		at := keyAt{string(e.GetKey()), e.GetPreviousModRevision()}
		if value, ok := c.window.ValueAt(at.key, at.revision); ok {
			own.PreviousKv = value
			continue
		}
		waiting, asked := c.waiters[at]
		if !asked {
			c.toLook = append(c.toLook, at)
		}
		c.waiters[at] = append(waiting, waiter{p, own})
		p.missing++
	}
	return filled
}

// flushLookUps turns what is to be looked up into effects.
func (c *Core) flushLookUps() {
	for some := range slices.Chunk(c.toLook, c.limits.LookUpKeys) {
		look := LookUp{Keys: make([]*consensusv1.KeyAt, len(some))}
		for i, at := range some {
			look.Keys[i] = &consensusv1.KeyAt{Key: []byte(at.key), ModRevision: at.revision}
		}
		c.effects = append(c.effects, look)
	}
	c.toLook = c.toLook[:0]
}

// Values takes in the answer to a LookUp: one encoded key-value for each key, empty if it is compacted.
func (c *Core) Values(keys []*consensusv1.KeyAt, kvs [][]byte) {
	for i, k := range keys {
		at := keyAt{string(k.GetKey()), k.GetModRevision()}
		for _, w := range c.waiters[at] {
			if i < len(kvs) {
				w.event.PreviousKv = kvs[i]
			}
			w.payload.missing--
			w.payload.bytes = 0
		}
		delete(c.waiters, at)
	}
	for _, st := range c.streams {
		c.release(st)
	}
	if c.sweep != nil {
		c.unblock(c.sweep)
	}
	for _, p := range c.passes {
		c.unblock(p)
	}
}
