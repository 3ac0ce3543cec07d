package expiry

import (
	"math"
	"time"
)

// outdated is when the table's rest of a lease, from which its next owner would count, lies a checkpoint's worth above the true one; its
// deadline if that is never.
func (c *Clocks) outdated(lease Lease) time.Duration {
	rest := time.Duration(min(lease.RestS(), secondsMax)) * time.Second
	if c.every == 0 || rest <= c.every || lease.Deadline == math.MaxInt64 {
		return lease.Deadline
	}
	return lease.Deadline - (rest - c.every)
}

// look lists a lease whose rest is to be recorded, and says when to look at it again. One that is not recorded by then is listed again.
func (c *Clocks) look(now time.Duration, s *slot) {
	s.key = min(s.Deadline, c.outdated(s.Lease))
	if s.key <= now {
		c.rests = append(c.rests, s.ID)
		s.key = min(s.Deadline, now+c.every)
	}
}

// Rests takes up to limit leases from those that Due listed for a checkpoint, and calls fn for each of which it is still true that
// its rest is to be recorded. From then on it counts as being recorded.
func (c *Clocks) Rests(now time.Duration, limit int, fn func(Lease)) {
	for limit > 0 && len(c.rests) > 0 {
		i, ok := c.index[c.rests[0]]
		c.rests = c.rests[1:]
		if !ok {
			continue
		}
		if s := &c.slots[i]; s.State == Live && s.Deadline > now && c.outdated(s.Lease) <= now {
			s.Recording = true
			fn(s.Lease)
			limit--
		}
	}
	if len(c.rests) == 0 {
		c.rests = nil
	}
}

// Checkpoint takes in what the table says of a lease's rest, 0 for none: nothing else is on its way there any more.
func (c *Clocks) Checkpoint(id, remainingS int64) {
	if i, ok := c.index[id]; ok {
		c.slots[i].RemainingS, c.slots[i].Recording = remainingS, false
	}
}

// Recorded says that no rest that was reckoned so far can get into the table any more, unless it is there.
func (c *Clocks) Recorded() {
	for i := range c.slots {
		c.slots[i].Recording = false
	}
}
