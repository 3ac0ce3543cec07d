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

// members are a group's registrations on one stream: mostly one.
type members struct {
	at map[uint64]int // position in ids, nil as long as they were never more than fewMax
	// ids is replaced, not changed, once it was given out.
	ids    []uint64
	shared bool
}

// fewMax is how many ids are searched one by one.
const fewMax = 8

// position of an id in ids, -1 if it is not there.
func (m *members) position(id uint64) int {
	if m.at == nil {
		return slices.Index(m.ids, id)
	}
	if i, ok := m.at[id]; ok {
		return i
	}
	return -1
}

func (m *members) append(id uint64) {
	m.ids = append(m.ids, id)
	switch {
	case m.at != nil:
		m.at[id] = len(m.ids) - 1
	case len(m.ids) > fewMax:
		m.at = make(map[uint64]int, len(m.ids))
		for i, id := range m.ids {
			m.at[id] = i
		}
	}
}

// drop takes out the id at a position; the last takes its place.
func (m *members) drop(i int) {
	last := len(m.ids) - 1
	if m.at != nil {
		delete(m.at, m.ids[i])
		if i != last {
			m.at[m.ids[last]] = i
		}
	}
	m.ids[i] = m.ids[last]
	m.ids = m.ids[:last]
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
		m = &members{}
		g.members[stream] = m
	}
	if m.position(id) >= 0 {
		return false
	}
	m.own()
	m.append(id)
	return true
}

func (g *Group) remove(stream, id uint64) bool {
	m := g.members[stream]
	if m == nil {
		return false
	}
	i := m.position(id)
	switch {
	case i < 0:
		return false
	case len(m.ids) == 1:
		delete(g.members, stream)
	default:
		m.own()
		m.drop(i)
	}
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
