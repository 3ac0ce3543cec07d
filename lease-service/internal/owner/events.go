package owner

import (
	"iter"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

const (
	// recentMax bounds the events of others that are remembered. recentFor is for how long: an owner that died is known to be dead within
	// the removal time and a little.
	recentMax = 4096
	recentFor = 2 * RemovalDefault
)

// Event is something to announce about a lease that this instance owns.
type Event struct {
	Kind     leasev1.Kind
	Lease    int64
	Sequence uint64
	TTLS     int64
	// RemainingS is the rest in whole seconds.
	RemainingS int64
	Revision   int64
	// Span is the span context of the write that it tells of, empty if that is not traced.
	Span []byte
}

// recentEvent is one for another to announce.
type recentEvent struct {
	Event
	at    time.Duration
	owner ownership.Identity
}

// recent holds the last recentMax events of others. What is too old to matter stays until another takes its place.
type recent struct {
	events []recentEvent
	oldest int // once there are recentMax
}

func (r *recent) add(event recentEvent) {
	if len(r.events) < recentMax {
		r.events = append(r.events, event)
		return
	}
	r.events[r.oldest] = event
	r.oldest = (r.oldest + 1) % recentMax
}

// all gives them, the oldest first.
func (r *recent) all() iter.Seq[*recentEvent] {
	return func(yield func(*recentEvent) bool) {
		for i := range r.events {
			if !yield(&r.events[(r.oldest+i)%len(r.events)]) {
				return
			}
		}
	}
}

// remember keeps an event that another is to announce.
func (c *Core) remember(now time.Duration, event Event) {
	if who, ok := c.history.Owner(event.Lease); ok {
		c.recent.add(recentEvent{event, now, who})
	}
}

// inherited appends the events of late of those who departed, for leases that are this instance's now: they may not have been announced.
func (c *Core) inherited(now time.Duration, view *feedv1.View, events []Event) []Event {
	for recent := range c.recent.all() {
		departed := slices.ContainsFunc(view.GetDeparted(), func(d *feedv1.Departed) bool {
			return d.GetName() == recent.owner.Name && d.GetIncarnation() == recent.owner.Incarnation
		})
		if departed && now-recent.at <= recentFor && c.history.Mine(recent.Lease) {
			events = append(events, recent.Event)
		}
	}
	return events
}
