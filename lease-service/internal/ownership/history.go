package ownership

import (
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// stepsMax bounds the views that are remembered. More than that within one removal time is a storm, in which it costs
// little to treat the oldest as unknown.
const stepsMax = 32

// Identity is one start of one instance.
type Identity struct {
	Name        string
	Incarnation uint64
}

func identityOf(i *feedv1.Instance) Identity { return Identity{i.GetName(), i.GetIncarnation()} }

// step is a view and when it was learned.
type step struct {
	view    *feedv1.View
	owners  rendezvous.Set
	learned time.Duration
}

// owner is the instance that owns a lease under the view; ok is false if the view names nobody.
func (s *step) owner(id int64) (owner Identity, ok bool) {
	if i := s.owners.Owner(id); i >= 0 {
		return identityOf(s.view.GetInstances()[i]), true
	}
	return Identity{}, false
}

// released tells whether the view says that an instance left it without any right to acknowledge.
func (s *step) released(who Identity) bool {
	for _, d := range s.view.GetDeparted() {
		if d.GetReleased() && d.GetName() == who.Name && d.GetIncarnation() == who.Incarnation {
			return true
		}
	}
	return false
}

// History is the newest view and those before it that still matter: an owner under one of them may hold a right to
// acknowledge until the removal time after the next view was learned.
type History struct {
	self    Identity
	removal time.Duration
	// steps are views of consecutive epochs, the newest last.
	steps []step
	// unknown is until when instances may hold rights under views that are not in steps.
	unknown time.Duration
}

// NewHistory makes a history that knows no view. removal is the removal time of the consensus tier.
func NewHistory(self Identity, removal time.Duration) *History {
	return &History{self: self, removal: removal}
}

// View is the newest view, or nil. It is shared and must not be changed.
func (h *History) View() *feedv1.View {
	if len(h.steps) == 0 {
		return nil
	}
	return h.newest().view
}

// Epoch is that of the newest view; ok is false while none is known.
func (h *History) Epoch() (epoch uint64, ok bool) {
	return h.View().GetEpoch(), len(h.steps) > 0
}

func (h *History) newest() *step { return &h.steps[len(h.steps)-1] }

// Adopt takes in a view at now. It tells whether the view is news, and whether it follows the one known before without a
// gap. After a gap nothing of what was owned before counts: between the two views others may have owned it.
func (h *History) Adopt(now time.Duration, view *feedv1.View) (news, contiguous bool) {
	names := make([]string, len(view.GetInstances()))
	for i, instance := range view.GetInstances() {
		names[i] = instance.GetName()
	}
	next := step{view: view, owners: rendezvous.New(names), learned: now}
	if len(h.steps) == 0 {
		h.begin(next)
		return true, false
	}
	switch known := h.newest().view.GetEpoch(); {
	case view.GetEpoch() <= known:
		return false, true
	case view.GetEpoch() > known+1:
		h.begin(next)
		return true, false
	}
	h.steps = append(h.steps, next)
	h.prune(now)
	return true, true
}

// begin forgets what came before: any instance may have owned any lease until now.
func (h *History) begin(first step) {
	h.steps = append(h.steps[:0], first)
	h.unknown = first.learned + h.removal
}

// prune drops the views under which nobody can hold a right any more, and the oldest past the bound.
func (h *History) prune(now time.Duration) {
	drop := 0
	for drop < len(h.steps)-1 && (h.steps[drop+1].learned+h.removal <= now || len(h.steps)-drop > stepsMax) {
		drop++
	}
	if drop == 0 {
		return
	}
	h.unknown = max(h.unknown, h.steps[drop].learned+h.removal)
	h.steps = append(h.steps[:0], h.steps[drop:]...)
}

// Removal is the removal time that counts.
func (h *History) Removal() time.Duration { return h.removal }

// Lengthen takes a removal time that is longer than the one known: every deadline was computed with too short a wait. It
// tells whether that is so; then the history begins anew, as after a gap.
func (h *History) Lengthen(now, removal time.Duration) bool {
	if removal <= h.removal {
		return false
	}
	h.removal = removal
	if len(h.steps) == 0 {
		return false
	}
	first := *h.newest()
	first.learned = now
	h.begin(first)
	return true
}

// Owner is the owner of a lease under the newest view; ok is false if there is none.
func (h *History) Owner(id int64) (owner Identity, ok bool) {
	if len(h.steps) == 0 {
		return Identity{}, false
	}
	return h.newest().owner(id)
}

// Mine tells whether this instance owns a lease under the newest view.
func (h *History) Mine(id int64) bool {
	owner, ok := h.Owner(id)
	return ok && owner == h.self
}

// Present tells whether this very start of the instance is in the newest view.
func (h *History) Present() bool { return contains(h.View(), h.self) }

func contains(view *feedv1.View, who Identity) bool {
	for _, instance := range view.GetInstances() {
		if identityOf(instance) == who {
			return true
		}
	}
	return false
}

// Settled is from when on no other instance can acknowledge a keepalive of the lease. It may lie in the future. What this
// instance itself acknowledged under an earlier view lies before it learned the newest one, so that counts too.
func (h *History) Settled(id int64) time.Duration {
	if len(h.steps) == 0 {
		return h.unknown
	}
	at := max(h.newest().learned, h.unknown)
	for i := range len(h.steps) - 1 {
		before, after := &h.steps[i], &h.steps[i+1]
		end := after.learned + h.removal
		if end <= at {
			continue
		}
		owner, ok := before.owner(id)
		if !ok || owner == h.self {
			continue
		}
		// One that goes on to own the lease is judged by the view in which it no longer does.
		if heir, ok := after.owner(id); ok && heir == owner {
			continue
		}
		if !after.released(owner) {
			at = end
		}
	}
	return at
}
