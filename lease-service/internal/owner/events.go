package owner

import (
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

// remember keeps an event that another is to announce.
func (c *Core) remember(now time.Duration, event Event) {
	who, ok := c.history.Owner(event.Lease)
	if !ok {
		return
	}
	drop := 0
	for drop < len(c.recent) && (now-c.recent[drop].at > recentFor || len(c.recent)-drop >= recentMax) {
		drop++
	}
	clear(c.recent[:drop]) // for the collector; the place is given back when the rest moves, as seldom as any slice that grows
	c.recent = append(c.recent[drop:], recentEvent{event, now, who})
}

// inherited appends the events of late of those who departed, for leases that are this instance's now: they may not have been announced.
func (c *Core) inherited(now time.Duration, view *feedv1.View, events []Event) []Event {
	for _, recent := range c.recent {
		departed := slices.ContainsFunc(view.GetDeparted(), func(d *feedv1.Departed) bool {
			return d.GetName() == recent.owner.Name && d.GetIncarnation() == recent.owner.Incarnation
		})
		if departed && now-recent.at <= recentFor && c.history.Mine(recent.Lease) {
			events = append(events, recent.Event)
		}
	}
	return events
}
