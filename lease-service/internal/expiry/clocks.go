package expiry

import (
	"math"
	"time"
	"unsafe"
)

// State is what is being done about a lease.
type State uint8

// The states; see the package comment for the arrows.
const (
	Foreign State = iota
	Live
	Stopped
	Deciding
	Gone
)

// String is the state's name in lower case.
func (s State) String() string {
	return [...]string{"foreign", "live", "stopped", "deciding", "gone"}[s]
}

// Lease is what is known of one lease.
type Lease struct {
	ID int64
	// Granted is the lease sequence of its grant, which no other lease has; 0 if the consensus tier did not record it.
	Granted uint64
	TTLS    int64
	// RemainingS is the checkpointed rest in seconds, 0 if there is none.
	RemainingS int64
	State      State
	// Recording tells that a rest may be on its way to the table.
	Recording bool
	// Deadline counts in Live, Stopped and Deciding.
	Deadline time.Duration
}

// RestS is how long the lease has when its last renewal is not known, in seconds: the checkpointed rest, else the TTL.
func (l Lease) RestS() int64 {
	if l.RemainingS > 0 {
		return min(l.RemainingS, l.TTLS)
	}
	return l.TTLS
}

// secondsMax is the longest time in whole seconds.
const secondsMax = math.MaxInt64 / int64(time.Second)

// Deadline is base and so many seconds, at most the end of time.
func Deadline(base time.Duration, seconds int64) time.Duration {
	if seconds >= secondsMax || time.Duration(seconds)*time.Second > math.MaxInt64-base {
		return math.MaxInt64
	}
	return base + time.Duration(seconds)*time.Second
}

// slot is a lease in memory.
type slot struct {
	Lease
	// key orders the heap; it is at most Deadline.
	key time.Duration
	// pos is the place in the heap, -1 if not there.
	pos int32
	// round is the load that last named the lease.
	round uint32
}

// Clocks holds all leases. Make one with New.
type Clocks struct {
	slots   []slot
	free    []int32
	index   map[int64]int32
	heap    []int32
	round   uint32
	running int
	// every is how far the table's rest may lie above the true one before the lease is listed in rests.
	every time.Duration
	rests []int64
	// listed are leases that were overdue, for Due to decide upon, in the order of the consensus tier's table.
	listed []uint64
}

// New makes an empty Clocks, which lists leases for a checkpoint when so much has passed of what the table says; 0 never does.
func New(every time.Duration) *Clocks { return &Clocks{index: map[int64]int32{}, every: every} }

// Len is how many leases there are.
func (c *Clocks) Len() int { return len(c.index) }

// LeaseBytes bounds what each of many leases takes: a slot and places in the heap and among the free, in slices that grow by a quarter, and an
// entry of a map that may be nearly half full. Few leases take more each, for all of it grows in steps.
const LeaseBytes = (slotBytes+8)*5/4 + entryBytes*16/7 + 1

const (
	slotBytes  = int(unsafe.Sizeof(slot{}))
	entryBytes = 17 // eight places of 16 bytes share eight bytes
)

// Bytes is how much memory the leases take, by estimate. What the most leases at a time took is kept.
func (c *Clocks) Bytes() int {
	return cap(c.slots)*slotBytes + (cap(c.heap)+cap(c.free))*4 + cap(c.listed)*8 + places(len(c.slots))*entryBytes
}

// places is how many places a map has that has held so many entries.
func places(entries int) int {
	n := 8
	for n*7/8 < entries {
		n *= 2
	}
	return n
}

// Running is how many of them are not Foreign.
func (c *Clocks) Running() int { return c.running }

// Get gives a lease.
func (c *Clocks) Get(id int64) (Lease, bool) {
	i, ok := c.index[id]
	if !ok {
		return Lease{}, false
	}
	return c.slots[i].Lease, true
}

// Put adds a lease, Foreign at first, or changes TTL and checkpoint of one that is there; its clock goes on. One that was granted at
// another sequence than the one known is another lease, and takes its place.
func (c *Clocks) Put(id int64, granted uint64, ttlS, remainingS int64) {
	i, ok := c.index[id]
	if ok && c.slots[i].Granted != granted {
		c.Remove(id)
		ok = false
	}
	if !ok {
		i = c.take()
		c.slots[i] = slot{Lease: Lease{ID: id, Granted: granted}, pos: -1}
		c.index[id] = i
	}
	s := &c.slots[i]
	s.TTLS, s.RemainingS, s.round = ttlS, remainingS, c.round
}

// take gives a free slot.
func (c *Clocks) take() int32 {
	if n := len(c.free); n > 0 {
		i := c.free[n-1]
		c.free = c.free[:n-1]
		return i
	}
	c.slots = append(c.slots, slot{})
	return int32(len(c.slots) - 1)
}

// Remove forgets a lease and tells what it was.
func (c *Clocks) Remove(id int64) (Lease, bool) {
	i, ok := c.index[id]
	if !ok {
		return Lease{}, false
	}
	lease := c.slots[i].Lease
	c.become(i, Foreign)
	delete(c.index, id)
	c.slots[i] = slot{pos: -1}
	c.free = append(c.free, i)
	return lease, true
}

// Each calls fn for every lease, in no order. fn may start and drop clocks, but neither put nor remove leases.
func (c *Clocks) Each(fn func(Lease)) {
	for i := range c.slots {
		if c.slots[i].ID != 0 {
			fn(c.slots[i].Lease)
		}
	}
}

// BeginLoad begins a round of Put that names every lease; Sweep ends it.
func (c *Clocks) BeginLoad() { c.round++ }

// Sweep forgets the leases that were not put since BeginLoad.
func (c *Clocks) Sweep() {
	for i := range c.slots {
		if s := &c.slots[i]; s.ID != 0 && s.round != c.round {
			c.Remove(s.ID)
		}
	}
}
