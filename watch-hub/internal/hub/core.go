package hub

import (
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// Config is what a Core needs to know.
type Config struct {
	ClusterID   uint64
	WindowBytes int
	Limits      Limits
	Follower    window.Limits
}

// Core is the state of a hub. Make one with New.
type Core struct {
	limits   Limits
	follower *window.Follower
	window   *window.Window
	// position is the live position: everything up to it was matched for the live registrations.
	position int64
	live     *match.Index
	streams  map[uint64]*stream

	unplaced map[*registration]struct{}
	futures  line
	ready    line // for the sweep that runs or comes next
	late     line // for the sweep after it
	behind   line
	again    []*registration // wait for the next Tick
	sweep    *pass
	passes   map[uint64]*pass
	// fetching is the history pass that has begun last for a range.
	fetching map[match.Range]*pass
	lastPass uint64

	waiters map[keyAt][]waiter
	toLook  []keyAt

	effects    []Effect
	dispatched []Dispatched
	overflowed []refusal // scratch of one dispatch
}

// refusal is registrations whose delivery was not taken.
type refusal struct {
	stream *stream
	ids    []uint64
}

// stream is one proxy's stream.
type stream struct {
	id     uint64
	queue  *egress.Queue
	regs   map[uint64]*registration
	parked map[*registration]struct{}

	// held are intervals with deliveries that wait for previous values, oldest first; current is of the one that is being
	// dispatched. heldGroups counts deliveries per group in both.
	held       []heldInterval
	current    []*delivery
	heldGroups map[match.Spec]int
	heldBytes  int
}

// New makes a core without a position.
func New(config Config) *Core {
	return &Core{
		limits:   config.Limits,
		follower: window.NewFollower(config.ClusterID, config.Follower),
		window:   window.New(config.WindowBytes),
		live:     match.NewIndex(),
		streams:  map[uint64]*stream{},
		unplaced: map[*registration]struct{}{},
		passes:   map[uint64]*pass{},
		fetching: map[match.Range]*pass{},
		waiters:  map[keyAt][]waiter{},
	}
}

// Take gives the effects of the calls since the last Take.
func (c *Core) Take() []Effect {
	c.flushLookUps()
	effects := c.effects
	c.effects = nil
	return effects
}

// Dispatched gives the intervals that went to the live registrations since the last call. The slice is good until the next
// Receive.
func (c *Core) Dispatched() []Dispatched {
	dispatched := c.dispatched
	c.dispatched = c.dispatched[:0]
	return dispatched
}

// Need says what the live position misses, if anything.
func (c *Core) Need() (window.Need, bool) { return c.follower.Need() }

// HasLeader is what the feed last said.
func (c *Core) HasLeader() bool { return c.follower.HasLeader() }

// Stats is what a Core measures.
type Stats struct {
	Streams, Registrations, Live int
	Position, Head, WindowBase   int64
	WindowBytes                  int
	Refused                      uint64
}

// Stats gives the present figures.
func (c *Core) Stats() Stats {
	s := Stats{
		Streams: len(c.streams), Live: c.live.Len(),
		Position: c.position, Head: c.follower.Head(), WindowBase: c.window.Base(), WindowBytes: c.window.Bytes(),
		Refused: c.follower.Refused(),
	}
	for _, st := range c.streams {
		s.Registrations += len(st.regs)
	}
	return s
}

// Open begins a stream, under an id that was never used before.
func (c *Core) Open(id uint64, queue *egress.Queue) {
	c.streams[id] = &stream{
		id: id, queue: queue, regs: map[uint64]*registration{}, parked: map[*registration]struct{}{},
		heldGroups: map[match.Spec]int{},
	}
	if c.follower.Started() {
		queue.Start(c.position)
	}
}

// Close ends a stream and its registrations.
func (c *Core) Close(id uint64) {
	st := c.streams[id]
	if st == nil {
		return
	}
	for _, r := range st.regs {
		c.remove(r)
	}
	st.held, st.current = nil, nil
	delete(c.streams, id)
}

// Register adds a registration to a stream. An id that the stream has already is passed over.
func (c *Core) Register(streamID uint64, registration *watchv1.Registration) {
	st := c.streams[streamID]
	if st == nil || st.regs[registration.GetId()] != nil {
		return
	}
	if len(st.regs) >= c.limits.Registrations {
		st.queue.End(&watchv1.Ended{Id: registration.GetId(), Reason: ReasonTooMany})
		return
	}
	if len(st.regs) == 0 && c.follower.Started() {
		c.mark(st, c.position) // what passed by while nobody here watched
	}
	r := newRegistration(st, registration)
	st.regs[r.id] = r
	c.place(r)
}

// Cancel ends a registration.
func (c *Core) Cancel(streamID, id uint64) {
	if st := c.streams[streamID]; st != nil {
		if r := st.regs[id]; r != nil {
			c.remove(r)
		}
	}
}

// Receive takes in a message of the feed or of an unfiltered history.
func (c *Core) Receive(m *feedv1.Message) {
	before := c.follower.Started()
	accepted := c.follower.Receive(m)
	if !before && c.follower.Started() {
		c.begin(m.GetPreviousRevision())
	}
	for _, i := range accepted {
		c.accept(i)
	}
}

// begin gives the hub its first position.
func (c *Core) begin(position int64) {
	c.position = position
	c.window.Reset(position)
	for _, st := range c.streams {
		st.queue.Start(position)
	}
	for r := range c.unplaced {
		delete(c.unplaced, r)
		c.place(r)
	}
}

// LiveCompacted takes in that no node has the history that Need asked for: the live registrations end, and the position
// jumps to where history begins. It does nothing, and returns false, while no compact revision beyond the position is
// known.
func (c *Core) LiveCompacted() bool {
	compact := c.follower.Compact()
	if compact-1 <= c.position {
		return false
	}
	for _, st := range c.streams {
		for _, r := range st.regs {
			if r.place == placeLive {
				c.endCompacted(r, compact)
			}
		}
	}
	c.position = compact - 1
	c.window.Reset(c.position)
	for _, st := range c.streams {
		c.mark(st, c.position)
	}
	for r := c.futures.first(); r != nil && r.covered <= c.position; r = c.futures.first() {
		c.futures.remove(r)
		c.place(r)
	}
	for _, i := range c.follower.Jump(c.position) {
		c.accept(i)
	}
	return true
}

// Relieved takes in that a stream's queue has room again.
func (c *Core) Relieved(streamID uint64) {
	st := c.streams[streamID]
	if st == nil {
		return
	}
	for r := range st.parked {
		delete(st.parked, r)
		c.place(r)
	}
}

// Watched tells whether there is any registration.
func (c *Core) Watched() bool {
	for _, st := range c.streams {
		if len(st.regs) > 0 {
			return true
		}
	}
	return false
}

// Tick tries again what had to wait for something to be learned, and tells those streams where the hub stands that nobody watches on.
func (c *Core) Tick() {
	for _, st := range c.streams {
		if len(st.regs) == 0 && c.follower.Started() {
			c.mark(st, c.position)
		}
	}
	again := c.again
	c.again = nil
	for _, r := range again {
		if r.place == placeAgain {
			c.place(r)
		}
	}
}

func (c *Core) endCompacted(r *registration, compact int64) {
	c.remove(r)
	r.stream.queue.End(&watchv1.Ended{Id: r.id, CompactRevision: compact})
}
