package hub

import (
	"container/heap"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
)

// place is where a registration is; see the package comment.
type place uint8

const (
	placeNone place = iota
	placeUnplaced
	placeFuture
	placeReady
	placeLate
	placeBehind
	placeAwaiting
	placeAgain
	placePassing
	placeParked
	placeLive
)

// registration is one client watch.
type registration struct {
	id     uint64
	spec   match.Spec
	stream *stream
	// covered is up to where the proxy was told, or told us, everything; while passing, the pass's position counts if it
	// is higher, and while live the live position.
	covered int64
	// first is the covered position that it began with: the proxy's own is never lower.
	first int64
	place place
	pass  *pass
	// at is the position in the line of its place.
	at int
}

func newRegistration(st *stream, r *watchv1.Registration) *registration {
	covered := max(0, r.GetNextRevision()-1)
	return &registration{id: r.GetId(), spec: match.SpecOf(r), stream: st, covered: covered, first: covered}
}

// line is registrations that wait, by covered position.
type line struct{ heap registrations }

func (l *line) len() int { return len(l.heap) }

func (l *line) first() *registration {
	if len(l.heap) == 0 {
		return nil
	}
	return l.heap[0]
}

func (l *line) add(r *registration)    { heap.Push(&l.heap, r) }
func (l *line) remove(r *registration) { heap.Remove(&l.heap, r.at) }

// registrations is a heap that tells each where it is, so that one can be taken out of the middle.
type registrations []*registration

func (h registrations) Len() int           { return len(h) }
func (h registrations) Less(i, j int) bool { return h[i].covered < h[j].covered }
func (h registrations) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is of heap.Interface.
func (h *registrations) Push(x any) {
	r := x.(*registration) //nolint:forcetypeassert // line pushes nothing else
	r.at = len(*h)
	*h = append(*h, r)
}

// Pop is of heap.Interface.
func (h *registrations) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return r
}

// place finds the place for a registration that is in none.
func (c *Core) place(r *registration) {
	switch {
	case !c.follower.Started():
		r.place = placeUnplaced
		c.unplaced[r] = struct{}{}
	case r.covered > c.position:
		r.place = placeFuture
		c.futures.add(r)
	case r.covered == c.position:
		c.join(r)
	case r.stream.queue.Lagging():
		r.place = placeParked
		r.stream.parked[r] = struct{}{}
	case r.covered < c.window.Base():
		r.place = placeBehind
		c.behind.add(r)
	case c.sweep != nil && r.covered < c.sweep.matched():
		r.place = placeLate
		c.late.add(r)
	default:
		r.place = placeReady
		c.ready.add(r)
	}
}

// join makes a registration live at the live position.
func (c *Core) join(r *registration) {
	r.place, r.pass = placeLive, nil
	c.live.Add(r.spec, r.stream.id, r.id)
	r.stream.queue.Join(r.id, r.first)
}

// remove takes a registration out of its place and its stream.
func (c *Core) remove(r *registration) {
	switch r.place {
	case placeUnplaced:
		delete(c.unplaced, r)
	case placeFuture:
		c.futures.remove(r)
	case placeReady:
		c.ready.remove(r)
	case placeLate:
		c.late.remove(r)
	case placeBehind:
		c.behind.remove(r)
	case placeAwaiting:
		r.pass.awaits.remove(r)
	case placePassing:
		c.leave(r)
	case placeParked:
		delete(r.stream.parked, r)
	case placeLive:
		c.live.Remove(r.spec, r.stream.id, r.id)
	case placeAgain, placeNone:
	}
	r.place = placeNone
	delete(r.stream.regs, r.id)
}
