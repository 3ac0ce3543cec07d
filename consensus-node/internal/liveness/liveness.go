// Package liveness decides, on the leader, which lease-service instances form the view.
//
// It is a pure core: time comes in as an argument, the wish for another view goes out as data and becomes true only when
// apply has it. Its one promise carries the leases' safety: an instance is removed as timed out only when its right to
// acknowledge keepalives has surely run out. That right lasts for the removal time after the *sending* of its last
// confirmed heartbeat. This leader counts from the receipt of a heartbeat, which is later. An earlier leader may have confirmed
// heartbeats that this one never saw, so it counts from the start of its leadership too, or from an earlier moment where it has learned
// that no heartbeat that came later can have been confirmed by an earlier leader.
package liveness

import (
	"cmp"
	"slices"
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// Removal is how long an instance may acknowledge keepalives after the sending of its last confirmed heartbeat, at most.
const Removal = 2 * time.Second

// Margin is what the leader waits beyond Removal, for clocks whose rates differ: a tenth allows for far more than
// real clocks do.
const Margin = Removal / 10

// Grace is how long a new leader listens before it removes anybody for silence, however long that has lasted: those who live have to
// find it first. It is no matter of safety.
const Grace = Removal / 4

// heard is what this leader knows of one incarnation.
type heard struct {
	instance *feedv1.Instance
	at       time.Duration
	leaving  bool
}

// Keeper is the state of one node. It is used by one goroutine at a time.
type Keeper struct {
	leading bool
	led     time.Duration    // since when
	since   time.Duration    // no heartbeat that came later was confirmed by an earlier leader
	heard   map[uint64]heard // by incarnation
}

// New makes a keeper of a node that does not lead.
func New() *Keeper {
	return &Keeper{heard: map[uint64]heard{}}
}

// Lead tells that this node became leader at now. What an earlier leadership heard counts for nothing.
func (k *Keeper) Lead(now time.Duration) {
	k.leading, k.led, k.since = true, now, now
	clear(k.heard)
}

// Inherit tells that no earlier leader can have confirmed a heartbeat that came after at.
func (k *Keeper) Inherit(at time.Duration) {
	if k.leading {
		k.since = min(k.since, at)
	}
}

// Follow tells that this node no longer leads.
func (k *Keeper) Follow() {
	k.leading = false
	clear(k.heard)
}

// Heartbeat records what an instance said at now. After it said that it leaves, nothing it says counts.
func (k *Keeper) Heartbeat(now time.Duration, instance *feedv1.Instance, leaving bool) {
	if !k.leading {
		return
	}
	if h, ok := k.heard[instance.GetIncarnation()]; ok && h.leaving {
		return
	}
	k.heard[instance.GetIncarnation()] = heard{instance: instance, at: now, leaving: leaving}
}

// Decide gives the change of view that is due at now, or nil.
func (k *Keeper) Decide(now time.Duration, view *feedv1.View) *journalv1.ViewChange {
	if !k.leading {
		return nil
	}
	k.prune(now, view)
	change := &journalv1.ViewChange{FromEpoch: view.GetEpoch()}
	present := map[string]bool{}
	for _, instance := range view.GetInstances() {
		if stays, released := k.judge(now, instance); stays {
			change.Instances = append(change.Instances, instance)
			present[instance.GetName()] = true
		} else {
			change.Departed = append(change.Departed, &feedv1.Departed{
				Name: instance.GetName(), Incarnation: instance.GetIncarnation(), Released: released,
			})
		}
	}
	joined := k.joining(now, view, present)
	if len(change.Departed) == 0 && len(joined) == 0 {
		return nil
	}
	change.Instances = append(change.Instances, joined...)
	slices.SortFunc(change.Instances, func(a, b *feedv1.Instance) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return change
}

// prune forgets incarnations that are not in the view and have been silent for so long that no message of theirs is under way.
func (k *Keeper) prune(now time.Duration, view *feedv1.View) {
	const silence = 30 * Removal
	for incarnation, h := range k.heard {
		inView := slices.ContainsFunc(view.GetInstances(), func(i *feedv1.Instance) bool { return i.GetIncarnation() == incarnation })
		if !inView && now-h.at > silence {
			delete(k.heard, incarnation)
		}
	}
}

// judge tells whether an instance of the view stays, and if not whether its right to acknowledge is surely over.
func (k *Keeper) judge(now time.Duration, instance *feedv1.Instance) (stays, released bool) {
	h, ok := k.heard[instance.GetIncarnation()]
	last := k.since
	if ok {
		last = max(last, h.at)
	}
	switch {
	case ok && h.leaving:
		return false, true
	case now-last > Removal+Margin && now-k.led > Grace:
		return false, true
	case k.succeeded(now, instance):
		return false, false
	}
	return true, false
}

// succeeded tells whether a newer start of the same instance is heard. One that has fallen silent is none, however high its number: the
// clock that numbers come from may have been set back since.
func (k *Keeper) succeeded(now time.Duration, instance *feedv1.Instance) bool {
	for incarnation, h := range k.heard {
		if h.instance.GetName() == instance.GetName() && incarnation > instance.GetIncarnation() && !h.leaving && now-h.at <= Removal {
			return true
		}
	}
	return false
}

// joining lists the live instances that are not in the view, one per name: the latest start.
func (k *Keeper) joining(now time.Duration, view *feedv1.View, present map[string]bool) []*feedv1.Instance {
	known := map[uint64]bool{}
	for _, instance := range view.GetInstances() {
		known[instance.GetIncarnation()] = true
	}
	latest := map[string]*feedv1.Instance{}
	for incarnation, h := range k.heard {
		name := h.instance.GetName()
		if known[incarnation] || present[name] || h.leaving || now-h.at > Removal {
			continue
		}
		if other := latest[name]; other == nil || other.GetIncarnation() < incarnation {
			latest[name] = h.instance
		}
	}
	joined := make([]*feedv1.Instance, 0, len(latest))
	for _, instance := range latest {
		joined = append(joined, instance)
	}
	return joined
}
