package hub

import (
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/match"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// pass is a walk over past changes for many registrations at once: the sweep over the window, or one over a node's history.
type pass struct {
	id uint64 // 0: the sweep
	// position is how far it has come.
	position int64
	// from is at or below what each proxy knows its registration to have covered: the beginning of what deliveries state.
	// (It may lie below where the pass began: of revisions without a match the proxy was not told.)
	from  int64
	upTo  int64 // of a history pass
	index *match.Index
	regs  map[*registration]struct{}
	// reach is at or above the covered position of each registration: below it some have had what others have not.
	reach int64
	// step is what was matched and waits for previous values.
	step *step
	// awaits are registrations of a history pass' ranges that stand further on: they go along when it has come to them.
	awaits line
}

// step is the deliveries of one interval of a pass.
type step struct {
	deliveries []*delivery
	to         int64
}

func (s *step) complete() bool {
	for _, d := range s.deliveries {
		if d.payload.missing > 0 {
			return false
		}
	}
	return true
}

func newPass(id uint64, start int64) *pass {
	return &pass{id: id, position: start, from: start, index: match.NewIndex(), regs: map[*registration]struct{}{}}
}

// matched is up to where changes were matched: a registration that comes later has missed them.
func (p *pass) matched() int64 {
	if p.step != nil {
		return p.step.to
	}
	return p.position
}

func (p *pass) add(r *registration) {
	r.place, r.pass = placePassing, p
	p.regs[r] = struct{}{}
	p.index.Add(r.spec, r.stream.id, r.id)
	p.from = min(p.from, r.first)
	p.reach = max(p.reach, r.covered)
}

// leave takes a registration out of its pass, with what it has got there. A history pass without registrations ends.
func (c *Core) leave(r *registration) {
	p := r.pass
	r.covered = max(r.covered, p.position)
	r.place, r.pass = placeNone, nil
	delete(p.regs, r)
	p.index.Remove(r.spec, r.stream.id, r.id)
	if len(p.regs) == 0 && c.passes[p.id] == p {
		c.forget(p)
		c.effects = append(c.effects, StopHistory{p.id})
	}
}

// forget takes a history pass off the list, and places those that waited for it to come to them.
func (c *Core) forget(p *pass) {
	delete(c.passes, p.id)
	for of, fetching := range c.fetching {
		if fetching == p {
			delete(c.fetching, of)
		}
	}
	for r := p.awaits.first(); r != nil; r = p.awaits.first() {
		p.awaits.remove(r)
		r.place, r.pass = placeNone, nil
		c.place(r)
	}
}

// await lets a registration wait for a pass that is on its way to where it stands, if there is one.
func (c *Core) await(r *registration) bool {
	p := c.fetching[r.spec.Range]
	if p == nil || r.covered < p.matched() || r.covered > p.upTo {
		return false
	}
	r.place, r.pass = placeAwaiting, p
	p.awaits.add(r)
	return true
}

// gather takes in those that a pass comes to with its next step.
func (c *Core) gather(p *pass, upTo int64) {
	for r := p.awaits.first(); r != nil && r.covered < upTo; r = p.awaits.first() {
		p.awaits.remove(r)
		r.place, r.pass = placeNone, nil
		if r.stream.queue.Lagging() {
			c.place(r)
			continue
		}
		p.add(r)
	}
}

// Work does one bounded step of catching up, and tells whether there is more to do at once.
func (c *Core) Work() bool {
	if !c.follower.Started() {
		return false
	}
	c.startPasses()
	if c.sweep == nil && !c.startSweep() {
		return false
	}
	if c.sweep.step == nil {
		c.sweepStep()
	}
	if c.sweep != nil {
		return c.sweep.step == nil
	}
	return c.ready.len()+c.late.len() > 0 || (c.behind.len() > 0 && len(c.passes) < c.limits.Passes)
}

// startSweep begins a sweep at the lowest covered position of those that wait for one.
func (c *Core) startSweep() bool {
	if c.ready.len() == 0 {
		c.ready, c.late = c.late, c.ready
		for _, r := range c.ready.heap {
			r.place = placeReady
		}
	}
	for r := c.ready.first(); r != nil; r = c.ready.first() {
		if r.covered >= c.window.Base() {
			c.sweep = newPass(0, r.covered)
			return true
		}
		// The window has moved on while it waited.
		c.ready.remove(r)
		c.place(r)
	}
	return false
}

// sweepStep takes the sweep a bounded step on, and to its end if that is reached.
func (c *Core) sweepStep() {
	p := c.sweep
	if p.position < c.window.Base() {
		c.endSweep()
		return
	}
	i := c.window.After(p.position, c.position, c.limits.StepRevisions, c.limits.StepBytes)
	for r := c.ready.first(); r != nil && r.covered < i.To; r = c.ready.first() {
		c.ready.remove(r)
		if r.stream.queue.Lagging() {
			c.place(r)
			continue
		}
		p.add(r)
	}
	c.passStep(p, i)
	if p.step == nil && (p.position >= c.position || len(p.regs) == 0) {
		c.endSweep()
	}
}

// endSweep places the sweep's registrations: those that have everything join, between two intervals.
func (c *Core) endSweep() {
	p := c.sweep
	c.sweep = nil
	for r := range p.regs {
		c.leave(r)
		c.place(r)
	}
	// What waited for this sweep from behind its end waits for the next one, with those that came too late.
	for r := c.ready.first(); r != nil; r = c.ready.first() {
		c.ready.remove(r)
		r.place = placeLate
		c.late.add(r)
	}
}

// passStep matches an interval for a pass and delivers it, or keeps it as the pass's step until previous values are there.
func (c *Core) passStep(p *pass, i window.Interval) {
	s := &step{to: i.To}
	p.index.Match(i.Revisions, func(g *match.Group, wanted []*feedv1.Revision) {
		payload := c.payload(g.Spec(), wanted)
		g.Streams(func(id uint64, ids []uint64) {
			st := c.streams[id]
			if p.reach >= i.To {
				if ids = st.below(ids, i.To); len(ids) == 0 {
					return
				}
			}
			s.deliveries = append(s.deliveries, &delivery{
				stream: st, spec: g.Spec(), from: p.from, to: i.To, ids: ids, payload: payload,
			})
		})
	})
	if !s.complete() {
		p.step = s
		return
	}
	c.finishStep(p, s)
}

// below leaves of the ids those whose covered position lies below a revision.
func (st *stream) below(ids []uint64, to int64) []uint64 {
	var left []uint64
	for _, id := range ids {
		if st.regs[id].covered < to {
			left = append(left, id)
		}
	}
	return left
}

// finishStep puts the deliveries of a step into their queues and moves the pass on. Registrations whose queue refuses, or
// has become too long for catching up, are parked.
func (c *Core) finishStep(p *pass, s *step) {
	p.step = nil
	var refused []*registration
	for _, d := range s.deliveries {
		if d.ids = d.stream.present(d.ids); len(d.ids) == 0 || d.stream.queue.Deliver(d.message(), false, d.size()) {
			continue
		}
		for _, id := range d.ids {
			if r := d.stream.regs[id]; r != nil && r.pass == p {
				refused = append(refused, r)
			}
		}
	}
	for _, r := range refused {
		c.park(r) // at the position before this step
	}
	p.position = s.to
	if len(s.deliveries) == 0 {
		return
	}
	lagging := false
	for _, d := range s.deliveries {
		lagging = lagging || d.stream.queue.Lagging()
	}
	if !lagging {
		return
	}
	for r := range p.regs {
		if r.stream.queue.Lagging() {
			c.park(r)
		}
	}
}

func (c *Core) park(r *registration) {
	c.leave(r)
	r.place = placeParked
	r.stream.parked[r] = struct{}{}
}

// startPasses asks for history for those that wait for it, as far as the bounds allow.
func (c *Core) startPasses() {
	for c.behind.len() > 0 {
		if r := c.behind.first(); c.fetching[r.spec.Range] != nil {
			c.behind.remove(r)
			if c.await(r) {
				continue
			}
			c.behind.add(r)
		}
		if len(c.passes) >= c.limits.Passes {
			return
		}
		c.lastPass++
		start := c.behind.first().covered
		p := newPass(c.lastPass, start)
		p.upTo = c.position
		ranges := map[match.Range]struct{}{}
		for r := c.behind.first(); r != nil && r.covered <= start+c.limits.PassSpan; r = c.behind.first() {
			if _, ok := ranges[r.spec.Range]; !ok && len(ranges) >= c.limits.PassRanges {
				break
			}
			c.behind.remove(r)
			if r.stream.queue.Lagging() || r.covered >= c.window.Base() {
				c.place(r)
				continue
			}
			if c.await(r) {
				continue
			}
			ranges[r.spec.Range] = struct{}{}
			p.add(r)
		}
		if len(p.regs) == 0 {
			continue
		}
		request := StartHistory{Pass: p.id, After: start, UpTo: p.upTo}
		for r := range ranges {
			c.fetching[r] = p
			request.Ranges = append(request.Ranges, &consensusv1.KeyRange{Key: []byte(r.Key), RangeEnd: []byte(r.End)})
		}
		c.passes[p.id] = p
		c.effects = append(c.effects, request)
	}
}

// History takes in a message of a pass: changes in its ranges, and an interval that covers everything.
func (c *Core) History(id uint64, m *feedv1.Message) {
	p := c.passes[id]
	if p == nil || p.step != nil {
		return
	}
	i := window.Interval{From: p.position, To: min(m.GetLastRevision(), p.upTo), Revisions: m.GetRevisions()}
	if m.GetPreviousRevision() <= p.position && i.To > p.position && !m.GetBodyLess() {
		for len(i.Revisions) > 0 && i.Revisions[0].GetRevision() <= p.position {
			i.Revisions = i.Revisions[1:]
		}
		for n := len(i.Revisions); n > 0 && i.Revisions[n-1].GetRevision() > i.To; n-- {
			i.Revisions = i.Revisions[:n-1]
		}
		c.gather(p, i.To)
		c.passStep(p, i)
	}
	if p.step == nil {
		c.processed(p)
	}
}

// processed ends a message of a pass. Once the window holds what is missing the pass has done its work.
func (c *Core) processed(p *pass) {
	switch {
	case c.passes[p.id] != p:
	case p.position >= c.window.Base():
		c.endPass(p)
		c.effects = append(c.effects, StopHistory{p.id})
	default:
		c.effects = append(c.effects, Processed{p.id})
	}
}

// endPass places a history pass's registrations.
func (c *Core) endPass(p *pass) {
	c.forget(p)
	for r := range p.regs {
		c.leave(r)
		c.place(r)
	}
}

// HistoryEnded takes in that a pass got all it asked for, or that no node has what comes next because it is compacted.
func (c *Core) HistoryEnded(id uint64, compacted bool) {
	p := c.passes[id]
	if p == nil {
		return
	}
	if !compacted {
		c.endPass(p)
		return
	}
	c.forget(p)
	compact := c.follower.Compact()
	for r := range p.regs {
		c.leave(r)
		if r.covered+1 < compact {
			c.endCompacted(r, compact)
			continue
		}
		// Either it starts above what is compacted, or the hub has not heard of the compaction yet.
		r.place = placeAgain
		c.again = append(c.again, r)
	}
}

// unblock goes on with a pass whose previous values have come.
func (c *Core) unblock(p *pass) {
	s := p.step
	if s == nil || !s.complete() {
		return
	}
	c.finishStep(p, s)
	if p.id != 0 {
		c.processed(p)
	} else if p.position >= c.position || len(p.regs) == 0 {
		c.endSweep()
	}
}
