package match

import (
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Index holds registrations and matches changes against them. Make one with NewIndex.
type Index struct {
	groups map[Spec]*Group
	keys   map[string][]*Group
	ranges tree
	count  int

	touched []*Group // scratch: groups with an event of the revision that is being matched
	matched []*Group // scratch: groups with a revision
}

// NewIndex makes an empty index.
func NewIndex() *Index {
	return &Index{groups: map[Spec]*Group{}, keys: map[string][]*Group{}}
}

// Len is the number of registrations.
func (x *Index) Len() int { return x.count }

// Ranges gives the distinct ranges that are wanted, in no defined order, at most limit of them.
func (x *Index) Ranges(limit int) []Range {
	seen := make(map[Range]struct{}, min(limit, len(x.groups)))
	out := make([]Range, 0, min(limit, len(x.groups)))
	for spec := range x.groups {
		if _, ok := seen[spec.Range]; !ok && len(out) < limit {
			seen[spec.Range] = struct{}{}
			out = append(out, spec.Range)
		}
	}
	return out
}

// Add adds a registration; it does nothing if it is there already.
func (x *Index) Add(spec Spec, stream, id uint64) {
	g := x.groups[spec]
	if g == nil {
		g = &Group{spec: spec, members: map[uint64]*members{}}
		x.groups[spec] = g
		switch {
		case spec.Single():
			x.keys[spec.Key] = append(x.keys[spec.Key], g)
		case !spec.empty():
			x.ranges.insert(g)
		}
	}
	if g.add(stream, id) {
		x.count++
	}
}

// Remove removes a registration; it does nothing if it is not there.
func (x *Index) Remove(spec Spec, stream, id uint64) {
	g := x.groups[spec]
	if g == nil || !g.remove(stream, id) {
		return
	}
	x.count--
	if len(g.members) > 0 {
		return
	}
	delete(x.groups, spec)
	switch {
	case spec.Single():
		x.dropKey(g)
	case !spec.empty():
		x.ranges.remove(g)
	}
}

// dropKey takes a single key's group out; there are at most eight groups per key, one for each choice of filters.
func (x *Index) dropKey(g *Group) {
	rest := x.keys[g.spec.Key]
	for i, other := range rest {
		if other == g {
			rest[i] = rest[len(rest)-1]
			rest = rest[:len(rest)-1]
			break
		}
	}
	if len(rest) == 0 {
		delete(x.keys, g.spec.Key)
		return
	}
	x.keys[g.spec.Key] = rest
}

// Match calls yield once with each group that wants something of the revisions, and with what it wants. The revisions are
// shared with the input where a group wants all events of one; nobody may change them.
func (x *Index) Match(revisions []*feedv1.Revision, yield func(g *Group, wanted []*feedv1.Revision)) {
	if x.count == 0 {
		return
	}
	matched := x.matched[:0]
	for _, r := range revisions {
		matched = x.matchOne(r, matched)
	}
	for i, g := range matched {
		wanted := g.revisions
		g.touched, g.revisions = false, nil
		matched[i] = nil
		yield(g, wanted)
	}
	x.matched = matched[:0]
}

func (x *Index) matchOne(r *feedv1.Revision, matched []*Group) []*Group {
	touched := x.touched[:0]
	for _, e := range r.GetEvents() {
		for _, g := range x.keys[string(e.GetKey())] {
			touched = g.take(e, touched)
		}
		if x.ranges.root != nil {
			touched = x.ranges.stab(string(e.GetKey()), e, touched)
		}
	}
	for i, g := range touched {
		g.finish(r)
		if !g.touched {
			g.touched = true
			matched = append(matched, g)
		}
		touched[i] = nil
	}
	x.touched = touched[:0]
	return matched
}
