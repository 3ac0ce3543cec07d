package expiry

import (
	"slices"
	"time"
)

// become moves a slot to a state and keeps the heap and the count true.
func (c *Clocks) become(i int32, state State) {
	s := &c.slots[i]
	switch {
	case s.State == Foreign && state != Foreign:
		c.running++
	case s.State != Foreign && state == Foreign:
		c.running--
	}
	s.State = state
	switch {
	case state == Live && s.pos < 0:
		s.key = min(s.Deadline, c.outdated(s.Lease))
		c.push(i)
	case state != Live && s.pos >= 0:
		c.cut(s.pos)
	}
}

// Start runs the clock of a lease up to a deadline; one that runs already is never shortened, and one that is decided
// upon is left alone.
func (c *Clocks) Start(id int64, deadline time.Duration) {
	i, ok := c.index[id]
	if !ok {
		return
	}
	s := &c.slots[i]
	switch s.State {
	case Foreign:
		s.Deadline = deadline
		c.become(i, Live)
	case Live, Stopped:
		s.Deadline = max(s.Deadline, deadline)
	case Deciding, Gone:
	}
}

// Renew moves the deadline of a live lease, never to an earlier time, and tells whether the lease is live.
func (c *Clocks) Renew(id int64, deadline time.Duration) bool {
	i, ok := c.index[id]
	if !ok || c.slots[i].State != Live {
		return false
	}
	s := &c.slots[i]
	s.Deadline = max(s.Deadline, deadline)
	return true
}

// Drop ends the clock of a lease that another owns now.
func (c *Clocks) Drop(id int64) {
	if i, ok := c.index[id]; ok {
		c.become(i, Foreign)
	}
}

// move goes from one state to another and tells whether the lease was in the first.
func (c *Clocks) move(id int64, from, to State) bool {
	i, ok := c.index[id]
	if !ok || c.slots[i].State != from {
		return false
	}
	c.become(i, to)
	return true
}

// Stop holds a live lease: it is neither renewed nor decided upon.
func (c *Clocks) Stop(id int64) bool { return c.move(id, Live, Stopped) }

// Resume ends Stop.
func (c *Clocks) Resume(id int64) bool { return c.move(id, Stopped, Live) }

// Undecide makes a lease live again whose expiry certainly did not and will not happen.
func (c *Clocks) Undecide(id int64) bool { return c.move(id, Deciding, Live) }

// Settle says that the lease a decision was about does not exist any more.
func (c *Clocks) Settle(id int64) bool { return c.move(id, Deciding, Gone) }

// listMax bounds how many leases are put in order at a time: a few milliseconds' worth.
const listMax = 1 << 16

// Due decides to expire live leases whose deadline has passed at now, up to limit of them. Of many it looks through the longest overdue, up
// to listMax, and gives them in the order of the table's rows, call after call, before it looks through the next: leases that are
// neighbours there go together, which costs the consensus tier's databases one page for all of them.
func (c *Clocks) Due(now time.Duration, limit int) []int64 {
	var due []int64
	for len(due) < limit {
		if len(c.listed) == 0 {
			if !c.list(now) {
				break
			}
			continue // perhaps all of those were renewed
		}
		id := c.listed[0]
		c.listed = c.listed[1:]
		if i, ok := c.index[int64(id)]; ok && c.slots[i].State == Live && c.slots[i].Deadline <= now {
			c.become(i, Deciding)
			due = append(due, int64(id))
		}
	}
	return due
}

// list looks at live leases whose turn has come at now, and lists those of them that are overdue. It tells whether there were any to look at.
func (c *Clocks) list(now time.Duration) bool {
	c.listed = nil
	var early []int32
	for _, i := range c.first(now, listMax) {
		if s := &c.slots[i]; s.Deadline > now { // renewed since it was put there, or to be recorded
			early = append(early, i)
		} else {
			c.listed = append(c.listed, uint64(s.ID))
		}
	}
	for _, i := range early {
		c.look(now, &c.slots[i])
		c.down(int(c.slots[i].pos))
	}
	slices.Sort(c.listed)
	return len(early) > 0 || len(c.listed) > 0
}

// Overdue is how many leases Due could look at at now. It takes time for each of them.
func (c *Clocks) Overdue(now time.Duration) int { return c.before(now, 0) }

// Next is the earliest time at which Due may give a lease; ok is false if no clock runs.
func (c *Clocks) Next() (at time.Duration, ok bool) {
	if len(c.heap) == 0 {
		return 0, false
	}
	return c.slots[c.heap[0]].key, true
}
