package match

import (
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Group is all registrations of one spec.
type Group struct {
	spec    Spec
	members map[uint64]*members

	// The rest is Match's scratch: what this group wants of the revisions that are being matched.
	touched   bool
	revisions []*feedv1.Revision
	events    []*feedv1.Event // of the revision that is being matched
}

// members are a group's registrations on one stream.
type members struct {
	at map[uint64]int // position in ids
	// ids is replaced, not changed, once it was given out.
	ids    []uint64
	shared bool
}

// Spec is what the group's registrations want.
func (g *Group) Spec() Spec { return g.spec }

// Streams calls yield with each stream that has registrations in the group, and with their ids. The order of streams is
// not defined; the ids are never changed afterwards.
func (g *Group) Streams(yield func(stream uint64, ids []uint64)) {
	for stream, m := range g.members {
		m.shared = true
		yield(stream, m.ids)
	}
}

func (g *Group) add(stream, id uint64) bool {
	m := g.members[stream]
	if m == nil {
		m = &members{at: map[uint64]int{}}
		g.members[stream] = m
	}
	if _, ok := m.at[id]; ok {
		return false
	}
	m.own()
	m.at[id] = len(m.ids)
	m.ids = append(m.ids, id)
	return true
}

func (g *Group) remove(stream, id uint64) bool {
	m := g.members[stream]
	if m == nil {
		return false
	}
	i, ok := m.at[id]
	if !ok {
		return false
	}
	delete(m.at, id)
	if len(m.at) == 0 {
		delete(g.members, stream)
		return true
	}
	m.own()
	last := len(m.ids) - 1
	if i != last {
		m.ids[i] = m.ids[last]
		m.at[m.ids[i]] = i
	}
	m.ids = m.ids[:last]
	return true
}

// own makes ids safe to change.
func (m *members) own() {
	if m.shared {
		m.ids = append(make([]uint64, 0, len(m.ids)+1), m.ids...)
		m.shared = false
	}
}

// take adds an event of the revision that is being matched, if the filter lets it pass.
func (g *Group) take(e *feedv1.Event, touched []*Group) []*Group {
	if !g.spec.Wants(e) {
		return touched
	}
	if len(g.events) == 0 {
		touched = append(touched, g)
	}
	g.events = append(g.events, e)
	return touched
}

// finish ends a revision: the group gets it whole, without a copy, if it wants every event of it.
func (g *Group) finish(r *feedv1.Revision) {
	if len(g.events) == len(r.GetEvents()) {
		g.revisions = append(g.revisions, r)
		g.events = g.events[:0]
		return
	}
	g.revisions = append(g.revisions, &feedv1.Revision{
		Revision: r.GetRevision(), Events: slices.Clone(g.events),
		SpanContext: r.GetSpanContext(), AppliedUnixNs: r.GetAppliedUnixNs(),
	})
	g.events = g.events[:0]
}
