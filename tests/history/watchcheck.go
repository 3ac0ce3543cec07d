package history

import "slices"

// CheckWatches holds each watch against what all saw together.
func CheckWatches(r *Record, j *Joined) []Violation {
	f := &findings{check: "watch"}
	for _, w := range r.Watches() {
		if f.full() {
			break
		}
		c := watchCheck{f: f, w: w, j: j, r: r, next: w.Start, bookmark: w.Start - 1}
		c.run()
	}
	return f.all
}

// watchCheck is one watch read from its beginning.
type watchCheck struct {
	f *findings
	w *Watch
	j *Joined
	r *Record
	// next is the first revision not covered yet; bookmark the last one that a progress notice promised.
	next     int64
	bookmark int64
}

func (c *watchCheck) run() {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for i, d := range c.w.deliveries {
		if d.Bookmark {
			c.covered(d.Revision, i)
			c.bookmark = max(c.bookmark, d.Revision)
			continue
		}
		c.events(d, i)
	}
	if c.w.compacted == 0 {
		return
	}
	if c.next >= c.w.compacted {
		c.f.add("%s ended as compacted at %d, but it stood at %d", c.w.Name, c.w.compacted, c.next)
	}
	if most := c.r.compacted(1 << 62); c.w.compacted > most {
		c.f.add("%s ended as compacted at %d, but nobody asked for more than %d", c.w.Name, c.w.compacted, most)
	}
}

// events checks one response with events.
func (c *watchCheck) events(d Delivery, number int) {
	for rest := d.Events; len(rest) > 0; {
		revision := rest[0].Mod
		end := slices.IndexFunc(rest, func(e Event) bool { return e.Mod != revision })
		if end < 0 {
			end = len(rest)
		}
		c.revision(revision, rest[:end], number)
		rest = rest[end:]
		if d.Revision < revision {
			c.f.add("%s, response %d: the header says %d, below the event at %d", c.w.Name, number, d.Revision, revision)
		}
	}
	for _, e := range d.Events {
		c.previous(e, d, number)
	}
}

// revision checks the events of one revision: the next that the range has, all of them, each once.
func (c *watchCheck) revision(revision int64, events []Event, number int) {
	if revision <= c.bookmark && revision >= c.w.Start {
		c.f.add("%s, response %d: %v came after a progress notice at %d", c.w.Name, number, events[0], c.bookmark)
	}
	if revision < c.next {
		c.f.add("%s, response %d: %v came again, out of order, or split: all up to %d had been delivered", c.w.Name, number, events[0], c.next-1)
		return
	}
	c.covered(revision-1, number)
	if want := c.expected(revision); len(events) != len(want) || !sameKeys(events, want) {
		c.f.add("%s, response %d: at %d it delivered %v of %v", c.w.Name, number, revision, events, want)
	}
	c.next = revision + 1
}

// sameKeys tells whether both hold the same keys, each once. Join has compared the rest.
func sameKeys(events, want []Event) bool {
	keys := make([]string, 0, len(events))
	for _, e := range events {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	return slices.EqualFunc(keys, want, func(key string, e Event) bool { return key == e.Key })
}

// expected is the events of a revision that the watch is to deliver.
func (c *watchCheck) expected(revision int64) (out []Event) {
	change, ok := c.j.Change(revision)
	if !ok {
		return nil
	}
	for _, e := range change.Events {
		if c.w.wants(e) {
			out = append(out, e)
		}
	}
	return out
}

// covered says that the watch claims to have delivered all up to the revision.
func (c *watchCheck) covered(revision int64, number int) {
	for ; c.next <= min(revision, c.j.Head()); c.next++ {
		if missing := c.expected(c.next); len(missing) > 0 {
			c.f.add("%s, response %d, missed %v", c.w.Name, number, missing[0])
		}
	}
	c.next = max(c.next, revision+1)
}

// previous checks what an event says was there before. It may be missing only where a compaction can have taken it.
func (c *watchCheck) previous(e Event, d Delivery, number int) {
	if !c.w.WantsPrev {
		if e.Prev != nil {
			c.f.add("%s, response %d: %v has a previous value that nobody asked for", c.w.Name, number, e)
		}
		return
	}
	before, ok := c.j.At(e.Mod - 1)
	if !ok {
		return
	}
	kv, there := before.Get(e.Key)
	switch {
	case e.Prev == nil && there && c.r.compacted(d.At) < e.Mod:
		c.f.add("%s, response %d: %v lacks its previous value %v", c.w.Name, number, e, kv)
	case e.Prev != nil && (!there || kv != *e.Prev):
		c.f.add("%s, response %d: %v has the previous value %v instead of %v", c.w.Name, number, e, *e.Prev, kv)
	}
}
