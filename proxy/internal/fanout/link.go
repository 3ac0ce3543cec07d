package fanout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/watch"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
	"github.com/holdfastdb/holdfast/services/credit"
)

// linkLimits bound what waits to be told to one hub; past them registrations wait in Hubs.
func linkLimits() credit.Limits {
	return credit.Limits{QueueItems: 1 << 20, QueueBytes: 256 << 20, BatchItems: 4 << 10, BatchBytes: 1 << 20}
}

// silenceMax is how long a hub may say nothing before its watches move to another; it says something every second. A network
// that drops packets ends no stream, and by the pings of the connection alone watches would stand still for 13 s.
const silenceMax = 5 * time.Second

var errSilent = errors.New("nothing was heard for too long")

// change is one registration or cancellation on its way to a hub.
type change struct {
	register *watchv1.Registration
	cancel   uint64
}

func (c change) size() int { return 32 + len(c.register.GetKey()) + len(c.register.GetRangeEnd()) }

// link is one stream to one hub.
type link struct {
	hubs   *Hubs
	hub    routing.Hub
	cancel context.CancelFunc
	lane   *credit.Lane[change]
	began  time.Time
	// leaving: the hub asked to be left. behind: it had nothing to tell though it was not where others had long been.
	leaving, behind atomic.Bool
	// heard is when the hub last spoke, in nanoseconds after began; 0: never. While what it said is handed out it is handling: a proxy
	// that takes its time must not blame the hub.
	heard atomic.Int64
	// told is up to where the hub has told the live path.
	told atomic.Int64

	mu     sync.Mutex
	closed bool
	regs   map[uint64]*registration

	// feed is the live position, used by the receiving goroutine alone; what it points to is shared with the Cores.
	feed *watch.Position
}

func newLink(h *Hubs, hub routing.Hub, cancel context.CancelFunc) *link {
	return &link{
		hubs: h, hub: hub, cancel: cancel, began: time.Now(), regs: map[uint64]*registration{},
		lane: credit.NewLane(linkLimits(), change.size),
	}
}

const handling = math.MaxInt64

// mute tells whether the hub has said nothing for so long that it gets no new watches.
func (l *link) mute(now time.Time) bool {
	return now.Sub(l.began)-time.Duration(l.heard.Load()) > muteAfter
}

// watched tells whether there are registrations at this hub.
func (l *link) watched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.regs) > 0
}

// held are the registrations at this hub.
func (l *link) held() []*registration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.regs))
}

// add registers; it returns false if the link has ended or is full.
func (l *link) add(reg *registration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	spec := &reg.spec
	err := l.lane.Put(change{register: &watchv1.Registration{
		Id: spec.ID, Key: spec.Key, RangeEnd: spec.End, NextRevision: spec.Next,
		NoPut: spec.NoPut, NoDelete: spec.NoDelete, PreviousKv: spec.PreviousKV,
	}})
	if err != nil {
		return false
	}
	l.regs[spec.ID] = reg
	return true
}

// remove cancels a registration. If the lane is full the link ends: a hub must not go on serving what nobody holds.
func (l *link) remove(id uint64) {
	l.mu.Lock()
	_, ok := l.regs[id]
	delete(l.regs, id)
	l.mu.Unlock()
	if ok && l.lane.Put(change{cancel: id}) != nil {
		l.cancel()
	}
}

// close ends the link and gives the registrations that it still held.
func (l *link) close() map[uint64]*registration {
	l.lane.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	regs := l.regs
	l.regs, l.closed = map[uint64]*registration{}, true
	return regs
}

// run holds the stream until it breaks or the context ends.
func (l *link) run(ctx context.Context) error {
	ctx, cancelFor := context.WithCancelCause(ctx)
	cancel := func() { cancelFor(nil) }
	defer cancel()
	conn, err := l.hubs.config.Pool.Get(l.hub.Address)
	if err != nil {
		return err
	}
	stream, err := watchv1.NewHubClient(conn).Watch(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		return fmt.Errorf("fanout: open stream to hub %s: %w", l.hub.Name, err)
	}
	if err := stream.Send(&watchv1.HubRequest{Name: l.hubs.config.Name}); err != nil {
		return fmt.Errorf("fanout: greet hub %s: %w", l.hub.Name, err)
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sending.Go(func() {
		defer cancel()
		l.send(ctx, stream)
	})
	silence := time.AfterFunc(silenceMax, func() { cancelFor(errSilent) })
	defer silence.Stop()
	for {
		response, err := stream.Recv()
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		if err != nil {
			return fmt.Errorf("fanout: hub %s: %w", l.hub.Name, err)
		}
		silence.Stop() // handing out takes the time that it takes
		if l.heard.Swap(handling) == 0 {
			l.hubs.signal()
		}
		l.lane.Taken(response.GetTaken())
		if !response.GetMarkAlone() {
			l.lane.Received()
		}
		l.take(response)
		l.heard.Store(int64(time.Since(l.began)))
		silence.Reset(silenceMax)
	}
}

func (l *link) send(ctx context.Context, stream watchv1.Hub_WatchClient) {
	for {
		batch, err := l.lane.Next(ctx)
		if err != nil {
			return
		}
		request := &watchv1.HubRequest{Taken: batch.Taken}
		for _, c := range batch.Items {
			if c.register != nil {
				request.Register = append(request.Register, c.register)
			} else {
				request.Cancel = append(request.Cancel, c.cancel)
			}
		}
		if stream.Send(request) != nil {
			return // the receiving side hears why
		}
	}
}

// take hands out one response: deliveries first, then what ended, so that the live interval covers nothing that the hub
// has given up, and those who join last.
func (l *link) take(r *watchv1.HubResponse) {
	for _, d := range r.GetDeliveries() {
		l.deliver(d)
	}
	for _, e := range r.GetEnded() {
		l.ended(e)
	}
	l.live(r.GetLiveFrom(), r.GetLiveTo())
	for _, id := range r.GetJoined() {
		l.mu.Lock()
		reg := l.regs[id]
		if reg != nil {
			reg.joined = true
		}
		l.mu.Unlock()
		if reg != nil {
			reg.owner.with(false, func(c *watch.Core) { c.Joined(id, r.GetLiveTo(), l.feed) })
		}
	}
	if r.GetLeaving() && !l.leaving.Swap(true) {
		l.hubs.signal()
	}
	l.judge(r)
}

// judge sees whether the hub is behind. One with something to tell is at work, and the proxy may be what is slow.
func (l *link) judge(r *watchv1.HubResponse) {
	l.hubs.know(r.GetLiveTo())
	l.told.Store(max(l.told.Load(), r.GetLiveTo()))
	switch {
	case r.GetMarkAlone(): // more may wait for credit
	case r.GetLiveTo() >= l.hubs.due.Load():
		l.behind.Store(false)
	case len(r.GetDeliveries())+len(r.GetEnded())+len(r.GetJoined()) == 0 && r.GetLiveTo() == r.GetLiveFrom():
		if !l.behind.Swap(true) {
			l.hubs.config.Log.Info("a watch-hub is behind", "hub", l.hub.Name, "revision", r.GetLiveTo(), "due", l.hubs.due.Load())
			l.hubs.signal()
		}
	}
}

func (l *link) deliver(d *watchv1.Delivery) {
	owners := make([]*registration, 0, len(d.GetRegistrations()))
	l.mu.Lock()
	for _, id := range d.GetRegistrations() {
		if reg := l.regs[id]; reg != nil {
			owners = append(owners, reg)
		}
	}
	l.mu.Unlock()
	if len(owners) == 0 {
		return
	}
	// All registrations of a delivery want the same, so one encoding serves them all.
	events := wire.EncodeEvents(d.GetRevisions(), owners[0].spec.PreviousKV)
	for _, reg := range owners {
		reg.owner.with(false, func(c *watch.Core) { c.Deliver(reg.spec.ID, d.GetFrom(), d.GetTo(), events) })
	}
}

func (l *link) ended(e *watchv1.Ended) {
	l.mu.Lock()
	reg := l.regs[e.GetId()]
	delete(l.regs, e.GetId())
	l.mu.Unlock()
	if reg == nil {
		return
	}
	if e.GetCompactRevision() == 0 {
		l.hubs.moved(Ended, 1)
	}
	reg.owner.with(true, func(c *watch.Core) {
		if compacted := e.GetCompactRevision(); compacted > 0 {
			c.Compacted(e.GetId(), compacted)
		} else {
			c.Broken(e.GetId())
		}
	})
}

// live raises the live position. If the interval starts beyond it, every joined registration has a hole there.
func (l *link) live(from, to int64) {
	switch {
	case l.feed == nil:
		l.feed = &watch.Position{}
	case from <= l.feed.Revision():
	default:
		l.mu.Lock()
		var joined []*registration
		for _, reg := range l.regs {
			if reg.joined {
				joined = append(joined, reg)
			}
		}
		l.mu.Unlock()
		l.hubs.moved(Hole, len(joined))
		for _, reg := range joined {
			reg.owner.with(true, func(c *watch.Core) { c.Broken(reg.spec.ID) })
		}
		l.feed = &watch.Position{}
	}
	l.feed.Raise(to)
}
