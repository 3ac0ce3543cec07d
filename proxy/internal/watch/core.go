package watch

import (
	"maps"
	"slices"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// Limits bound one client stream.
type Limits struct {
	// ResponseBytes bounds one response, where whole revisions allow it.
	ResponseBytes int
	// FragmentBytes bounds one response of a watch that asked for fragments.
	FragmentBytes int
	// BufferBytes bounds the events that wait for the client; one delivery may exceed it.
	BufferBytes int
}

// DefaultLimits keep a response below the 4 MiB that a plain gRPC client takes.
func DefaultLimits() Limits {
	return Limits{ResponseBytes: 4<<20 - 64<<10, FragmentBytes: 2 << 20, BufferBytes: 16 << 20}
}

// Fence is where a linearizable observer stood after a creation arrived.
type Fence struct {
	Header          wire.Header
	CompactRevision int64
}

// Position is how far the live path of one hub stream has come. The stream raises it after it has delivered everything up
// to there; any Core may read it.
type Position struct{ revision atomic.Int64 }

// Raise moves the position forward.
func (p *Position) Raise(revision int64) {
	if revision > p.revision.Load() {
		p.revision.Store(revision)
	}
}

// Revision is the position.
func (p *Position) Revision() int64 { return p.revision.Load() }

// Effects are what the hubs must be told, in order: Drop first.
type Effects struct {
	// Drop are registrations that end.
	Drop []uint64
	// Register are watches that need a hub.
	Register []Register
	// Holes counts those of them that need it anew because their hub left something out.
	Holes int
}

// Register is one registration to be made.
type Register struct {
	ID         uint64
	Key, End   []byte
	Next       int64
	NoPut      bool
	NoDelete   bool
	PreviousKV bool
}

// Core is the state of one client stream. It is not safe for use from several goroutines.
type Core struct {
	limits Limits
	// newID gives registration ids that were never used in this process.
	newID func() uint64

	watches map[int64]*watch
	regs    map[uint64]*watch // nil as long as there were never more than fewMax: see registered
	nextID  int64
	// live counts the watches that have not ended.
	live    int
	pending []*pb.WatchRequest
	ready   []entry
	// bytes of events that wait in queues.
	bytes     int
	suspended []*watch
	parts     [][]byte // scratch of one response
	// wanted: a progress request found no watch that it could be answered for.
	wanted  bool
	effects Effects
}

// entry is one turn in the queue of responses: a finished response, the events of a watch, or a progress notice that is
// worked out when its turn comes.
type entry struct {
	control *wire.WatchHead
	// creates is the watch that a control response tells the client of.
	creates *watch
	watch   *watch
	notice  bool
	// all: the answer to a client's progress request.
	all bool
}

type watch struct {
	id       int64
	spec     Register
	fragment bool
	// notify: the client wants notices while idle; idle: nothing was sent since the last tick.
	notify, idle bool

	header wire.Header
	// told is the highest revision that a header on this watch carried.
	told int64
	// reached is the highest revision known to exist as far as this watch heard.
	reached int64

	reg     uint64
	covered int64
	feed    *Position

	// announced: the client was told that the watch is there. To clientv3 a response for any other is a stray, and it cancels it.
	announced bool
	queue     []run
	fragments [][]byte
	inReady   bool
	suspended bool
	// ended watches keep their id until the client cancels them, as in etcd.
	ended  bool
	finish *wire.WatchHead
}

// run is a run of revisions in shared events.
type run struct {
	events   *wire.Events
	from, to int
}

// NewCore makes the state of a new stream. newID must never give the same id twice in one process.
func NewCore(limits Limits, newID func() uint64) *Core {
	return &Core{limits: limits, newID: newID, watches: map[int64]*watch{}}
}

// Take gives the effects since the last Take.
func (c *Core) Take() Effects {
	e := c.effects
	c.effects = Effects{}
	return e
}

// Backlog is the number of requests and responses that wait, for the caller to stop reading from a client that asks more
// than it takes.
func (c *Core) Backlog() int { return len(c.pending) + len(c.ready) }

// Watches is the number of watches that live.
func (c *Core) Watches() int { return c.live }

// Wanted tells that a progress request waits for a watch to become current; Next looks again each time.
func (c *Core) Wanted() bool { return c.wanted }

// Suspended is the number of watches that were taken off their hub because the client does not read.
func (c *Core) Suspended() int { return len(c.suspended) }

// Close ends all watches.
func (c *Core) Close() {
	for _, id := range c.ids() {
		c.unregister(c.watches[id])
	}
	c.watches, c.regs = map[int64]*watch{}, nil
	c.pending, c.ready, c.suspended, c.bytes, c.live, c.wanted = nil, nil, nil, 0, 0, false
}

// position is up to where the watch needs nothing more from a hub.
func (w *watch) position() int64 {
	if w.feed != nil {
		return max(w.covered, w.feed.Revision())
	}
	return w.covered
}

// sent is up to where the client was sent everything.
func (w *watch) sent() int64 {
	if len(w.queue) > 0 {
		return w.queue[0].events.Revision(w.queue[0].from) - 1
	}
	return w.position()
}

// current: in the live path, started, and not behind what the client was told.
func (w *watch) current() bool {
	return !w.ended && w.feed != nil && len(w.fragments) == 0 && w.sent() >= w.told && !w.future()
}

// future: it starts beyond the revision after the last that exists.
func (w *watch) future() bool {
	reached := w.reached
	if w.feed != nil {
		reached = max(reached, w.feed.Revision())
	}
	return w.spec.Next-1 > reached
}

func (w *watch) head() wire.WatchHead {
	header := w.header
	header.Revision = w.told
	return wire.WatchHead{Header: header, WatchID: w.id}
}

// ids are the watches in the order of their ids.
func (c *Core) ids() []int64 { return slices.Sorted(maps.Keys(c.watches)) }

func (c *Core) control(head wire.WatchHead) { c.ready = append(c.ready, entry{control: &head}) }
