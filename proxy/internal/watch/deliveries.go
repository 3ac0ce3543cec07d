package watch

import (
	"slices"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// Deliver takes in one interval (from, to] of a registration with its events; those at or below what is covered already
// are dropped. An interval that starts beyond the covered position leaves a hole: the watch registers anew. Deliveries to
// registrations that are gone are passed over.
func (c *Core) Deliver(reg uint64, from, to int64, events *wire.Events) {
	w := c.registered(reg)
	if w == nil {
		return
	}
	position := w.position()
	switch {
	case to <= position:
		return
	case from > position:
		c.effects.Holes++
		c.again(w)
		return
	}
	first := events.After(position)
	if first < events.Len() {
		size := events.Size(first, events.Len())
		if c.bytes > 0 && c.bytes+size > c.limits.BufferBytes {
			c.suspend(w)
			return
		}
		w.queue = append(w.queue, run{events, first, events.Len()})
		c.bytes += size
		c.enqueue(w)
	}
	w.covered = to
	w.reached = max(w.reached, to)
}

// Joined takes in that a registration is in the live path of its hub's stream from liveTo on.
func (c *Core) Joined(reg uint64, liveTo int64, feed *Position) {
	w := c.registered(reg)
	if w == nil {
		return
	}
	w.covered = max(w.position(), liveTo)
	w.reached = max(w.reached, liveTo)
	w.feed = feed
}

// Broken takes in that a registration's hub has gone, or lost track: the watch registers anew.
func (c *Core) Broken(reg uint64) {
	if w := c.registered(reg); w != nil {
		c.again(w)
	}
}

// Compacted takes in that a hub gave a registration up because what comes next is compacted: the watch ends.
func (c *Core) Compacted(reg uint64, compactRevision int64) {
	w := c.registered(reg)
	if w == nil {
		return
	}
	if w.position()+1 >= compactRevision {
		// The hub spoke of an earlier position than the one that was reached since.
		c.again(w)
		return
	}
	c.unregister(w)
	w.reached = max(w.reached, compactRevision)
	c.compacted(w, compactRevision)
}

// compacted ends a watch after the events that wait before it.
func (c *Core) compacted(w *watch, compactRevision int64) {
	w.ended = true
	c.live--
	head := w.head()
	head.Canceled, head.CompactRevision = true, compactRevision
	w.finish = &head
	c.enqueue(w)
}

// fewMax is how many watches are searched one by one: most streams have a single one, and a map is larger than that.
const fewMax = 8

// registered finds a watch by its registration, nil if there is none.
func (c *Core) registered(reg uint64) *watch {
	if c.regs != nil || reg == 0 {
		return c.regs[reg]
	}
	for _, w := range c.watches {
		if w.reg == reg {
			return w
		}
	}
	return nil
}

// register asks for a hub from the covered position on.
func (c *Core) register(w *watch) {
	w.reg = c.newID()
	switch {
	case c.regs != nil:
		c.regs[w.reg] = w
	case len(c.watches) > fewMax:
		c.regs = make(map[uint64]*watch, len(c.watches))
		for _, w := range c.watches {
			if w.reg != 0 {
				c.regs[w.reg] = w
			}
		}
	}
	spec := w.spec
	spec.ID, spec.Next = w.reg, w.covered+1
	c.effects.Register = append(c.effects.Register, spec)
}

// unregister takes the watch off its hub and keeps what was covered.
func (c *Core) unregister(w *watch) {
	if w.reg == 0 {
		return
	}
	w.covered = w.position()
	w.reached = max(w.reached, c.liveOf(w))
	delete(c.regs, w.reg)
	c.effects.Drop = append(c.effects.Drop, w.reg)
	w.reg, w.feed = 0, nil
}

func (c *Core) liveOf(w *watch) int64 {
	if w.feed == nil {
		return 0
	}
	return w.feed.Revision()
}

func (c *Core) again(w *watch) {
	c.unregister(w)
	c.register(w)
}

func (c *Core) suspend(w *watch) {
	c.unregister(w)
	w.suspended = true
	c.suspended = append(c.suspended, w)
}

// resume puts suspended watches back when half of the buffer is free again.
func (c *Core) resume() {
	if len(c.suspended) == 0 || c.bytes > c.limits.BufferBytes/2 {
		return
	}
	back := slices.Clone(c.suspended)
	c.suspended = nil
	for _, w := range back {
		w.suspended = false
		c.register(w)
	}
}

// enqueue gives the watch a turn unless it has one.
func (c *Core) enqueue(w *watch) {
	if !w.inReady {
		w.inReady = true
		c.ready = append(c.ready, entry{watch: w})
	}
}
