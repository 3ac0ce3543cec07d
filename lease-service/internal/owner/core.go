package owner

import (
	"fmt"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

// RemovalDefault is the removal time of the consensus tier as long as no heartbeat told it.
const RemovalDefault = 2 * time.Second

// Core is the state of one instance. Make one with New.
type Core struct {
	self    ownership.Identity
	history *ownership.History
	right   ownership.Right
	clocks  *expiry.Clocks

	loaded   bool
	sequence uint64
	// ticked is when Tick was last called, 0 before the first.
	ticked time.Duration
	// recent are events of leases that others own: their owner may have died before it told of them.
	recent recent
	// reprieved is when something is decided again after an outage.
	reprieved time.Duration
	// stops holds the revokes of clients that may be under way, the oldest first; stopping is how many there are.
	stops    map[int64][]stop
	stopping int
	// spent is how many of a lease's stops have had their revokes.
	spent map[int64]int
	// clears holds the leases whose checkpoint must be cleared before a keepalive is acknowledged.
	clears map[int64]bool
}

// New makes the core of one start of an instance. checkpoint is how far the rest that the table has of a lease may lie above the true
// one before it is to be recorded; 0 records none. drift is what is given up of the right for clocks whose rates differ.
func New(self *feedv1.Instance, checkpoint time.Duration, drift ownership.Drift) *Core {
	identity := ownership.Identity{Name: self.GetName(), Incarnation: self.GetIncarnation()}
	return &Core{
		self: identity, history: ownership.NewHistory(identity, RemovalDefault), right: ownership.NewRight(drift), clocks: expiry.New(checkpoint),
		stops: map[int64][]stop{}, spent: map[int64]int{}, clears: map[int64]bool{},
	}
}

// Sequence is that of the last change taken in; ok is false before the first table.
func (c *Core) Sequence() (sequence uint64, ok bool) { return c.sequence, c.loaded }

// View is the newest view, or nil. It is shared and must not be changed.
func (c *Core) View() *feedv1.View { return c.history.View() }

// Epoch is that of the newest view.
func (c *Core) Epoch() uint64 { return c.history.View().GetEpoch() }

// Owned is how many leases the instance owns.
func (c *Core) Owned() int { return c.clocks.Running() }

// Bytes is how much memory the leases take here, whoever owns them, by estimate.
func (c *Core) Bytes() int { return c.clocks.Bytes() }

// Known is how many leases there are.
func (c *Core) Known() int { return c.clocks.Len() }

// Holds tells whether the instance may acknowledge keepalives at now.
func (c *Core) Holds(now time.Duration) bool {
	epoch, ok := c.history.Epoch()
	return ok && c.right.Holds(now, epoch)
}

// Serving tells whether the instance is in the view, knows the table and may acknowledge.
func (c *Core) Serving(now time.Duration) bool {
	return c.loaded && c.history.Present() && c.Holds(now)
}

// HeartbeatAge is the time since the sending of the last confirmed heartbeat; ok is false if none counts.
func (c *Core) HeartbeatAge(now time.Duration) (time.Duration, bool) { return c.right.Age(now) }

// Confirmed takes in the answer to a heartbeat at now.
func (c *Core) Confirmed(now time.Duration, confirmation ownership.Confirmation) {
	if c.history.Lengthen(now, confirmation.Removal) {
		c.retake(now)
	}
	ended, had := c.right.Until()
	c.right.Confirm(c.self, confirmation)
	if had && c.Holds(now) && now-ended >= outage {
		c.reprieved = now + reprieve
	}
}

// Leave gives up the right to acknowledge for good.
func (c *Core) Leave() { c.right.End() }

// Load takes in a table read at one lease sequence. One that is not newer than what is known is ignored. After a gap it appends to
// events what is to be announced of the changes that were missed: which leases this instance owned and are gone, and which it owns
// now and were granted. The sequence of those that are gone is the table's, for theirs is not known.
func (c *Core) Load(
	now time.Duration, sequence uint64, view *feedv1.View, leases []*consensusv1.LeaseEntry, events []Event,
) []Event {
	if c.loaded && sequence <= c.sequence {
		return events
	}
	gap, missed := c.loaded, c.sequence
	if gap {
		events = c.missing(now, sequence, leases, events)
	}
	c.loaded, c.sequence = true, sequence
	news, contiguous := c.history.Adopt(now, view)
	if news {
		c.fence()
	}
	c.clocks.BeginLoad()
	for _, entry := range leases {
		// One that was granted anew since is newly taken below, whatever was known of the id.
		c.clocks.Put(entry.GetId(), entry.GetGrantedSequence(), entry.GetTtlS(), entry.GetRemainingTtlS())
	}
	c.clocks.Sweep()
	c.loadedStops()
	clear(c.clears)
	if contiguous {
		c.handOver(now)
	} else {
		// Between the two views others may have owned any of them.
		c.retake(now)
	}
	if gap {
		events = c.found(missed, leases, events)
	}
	return events
}

// missing appends the ends of the leases that this instance owned and that a table does not have.
func (c *Core) missing(now time.Duration, sequence uint64, leases []*consensusv1.LeaseEntry, events []Event) []Event {
	there := make(map[int64]uint64, len(leases))
	for _, entry := range leases {
		there[entry.GetId()] = entry.GetGrantedSequence()
	}
	c.clocks.Each(func(lease expiry.Lease) {
		if granted, ok := there[lease.ID]; lease.State == expiry.Foreign || ok && granted == lease.Granted {
			return
		}
		event := Event{
			Kind: leasev1.Kind_KIND_REVOKED, Lease: lease.ID, Sequence: sequence, TTLS: lease.TTLS, RemainingS: restS(now, lease.Deadline),
		}
		if lease.State == expiry.Deciding || lease.State == expiry.Gone {
			event.Kind = leasev1.Kind_KIND_EXPIRED
		}
		events = append(events, event)
	})
	return events
}

// found appends the grants of the leases that this instance owns and that were granted after a sequence.
func (c *Core) found(after uint64, leases []*consensusv1.LeaseEntry, events []Event) []Event {
	for _, entry := range leases {
		if lease, ok := c.clocks.Get(entry.GetId()); ok && lease.State != expiry.Foreign && lease.Granted > after {
			events = append(events, Event{
				Kind: leasev1.Kind_KIND_GRANTED, Lease: lease.ID, Sequence: lease.Granted, TTLS: lease.TTLS, RemainingS: lease.RestS(),
			})
		}
	}
	return events
}

// Apply takes in the next change of the lease sequence at now and appends what is to be announced to events. The error says
// that a change is missing before it; then nothing was taken in.
func (c *Core) Apply(now time.Duration, change *feedv1.LeaseChange, events []Event) ([]Event, error) {
	switch {
	case !c.loaded || change.GetSequence() > c.sequence+1:
		return events, fmt.Errorf("owner: change %d does not follow sequence %d", change.GetSequence(), c.sequence)
	case change.GetSequence() <= c.sequence:
		return events, nil
	}
	c.sequence = change.GetSequence()
	switch {
	case change.GetGranted() != nil:
		granted := change.GetGranted()
		events = c.granted(now, granted.GetId(), granted.GetTtlS(), change.GetSpanContext(), events)
	case change.GetRevoked() != nil:
		events = c.revoked(now, change.GetRevoked(), change.GetSpanContext(), events)
	case change.GetView() != nil:
		events = c.viewed(now, change.GetView(), events)
	case change.GetCheckpoint() != nil:
		c.checkpointed(change.GetCheckpoint())
	}
	return events, nil
}

func (c *Core) granted(now time.Duration, id, ttlS int64, span []byte, events []Event) []Event {
	c.clocks.Put(id, c.sequence, ttlS, 0)
	c.regranted(id, c.sequence)
	event := Event{Kind: leasev1.Kind_KIND_GRANTED, Lease: id, Sequence: c.sequence, TTLS: ttlS, RemainingS: ttlS, Span: span}
	if !c.history.Mine(id) {
		c.remember(now, event)
		return events
	}
	// Another may have acknowledged a keepalive meant for this lease, taking it for an earlier one of the same id.
	c.clocks.Start(id, expiry.Deadline(c.base(now, id), ttlS))
	c.stopAgain(id)
	return append(events, event)
}

func (c *Core) revoked(now time.Duration, revoked *feedv1.LeaseRevoked, span []byte, events []Event) []Event {
	kind := leasev1.Kind_KIND_REVOKED
	if revoked.GetExpired() {
		kind = leasev1.Kind_KIND_EXPIRED
	}
	for _, id := range revoked.GetIds() {
		if !revoked.GetExpired() {
			c.revokedByClient(id)
		}
		delete(c.clears, id)
		lease, ok := c.clocks.Remove(id)
		if !ok {
			continue
		}
		event := Event{
			Kind: kind, Lease: id, Sequence: c.sequence, TTLS: lease.TTLS, Revision: revoked.GetRevision(), Span: span,
		}
		if lease.State == expiry.Foreign {
			c.remember(now, event)
			continue
		}
		event.RemainingS = restS(now, lease.Deadline)
		events = append(events, event)
	}
	return events
}

func (c *Core) checkpointed(checkpoint *feedv1.LeaseCheckpoint) {
	c.clocks.Checkpoint(checkpoint.GetId(), checkpoint.GetRemainingTtlS())
	delete(c.clears, checkpoint.GetId())
}

// viewed takes in a view.
func (c *Core) viewed(now time.Duration, view *feedv1.View, events []Event) []Event {
	news, contiguous := c.history.Adopt(now, view)
	if !news {
		return events
	}
	c.fence()
	clear(c.clears)
	if contiguous {
		c.handOver(now)
	} else {
		c.retake(now)
	}
	return c.inherited(now, view, events)
}

// handOver follows the newest view, which is the one that was known or the next. Leases that were this instance's before it keep
// their deadlines, for nobody owned them in between; the others that are its now are taken over.
func (c *Core) handOver(now time.Duration) {
	c.clocks.Each(func(lease expiry.Lease) {
		mine := c.history.Mine(lease.ID)
		switch {
		case mine && lease.State == expiry.Foreign:
			c.takeOver(now, lease)
		case !mine && lease.State != expiry.Foreign:
			c.clocks.Drop(lease.ID)
		}
	})
}

// fence makes the leases live again that a decision under an earlier epoch was about: in the order of the lease sequence a
// revoke by it would have come before the view, and after the view it is rejected. So is a rest that was to be recorded.
func (c *Core) fence() {
	c.clocks.Recorded()
	c.clocks.Each(func(lease expiry.Lease) {
		if c.clocks.Undecide(lease.ID) {
			c.stopAgain(lease.ID)
		}
	})
}

// retake counts every lease that is this instance's as newly taken.
func (c *Core) retake(now time.Duration) {
	c.clocks.Each(func(lease expiry.Lease) {
		if c.history.Mine(lease.ID) {
			c.takeOver(now, lease)
		} else {
			c.clocks.Drop(lease.ID)
		}
	})
}

func (c *Core) takeOver(now time.Duration, lease expiry.Lease) {
	c.clocks.Start(lease.ID, expiry.Deadline(c.base(now, lease.ID), lease.RestS()))
	c.stopAgain(lease.ID)
}

// base is from when on a lease's TTL counts whose last keepalive is not known here: when nobody else can acknowledge any more.
func (c *Core) base(now time.Duration, id int64) time.Duration {
	return max(now, c.history.Settled(id))
}

// restS is a rest in whole seconds, as etcd tells it: cut off, not rounded. An overdue lease has none.
func restS(now, deadline time.Duration) int64 {
	return int64(max(0, deadline-now) / time.Second)
}
