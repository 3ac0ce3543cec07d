package history

import (
	"maps"
	"slices"
	"time"
)

// Change is all that happened at one revision.
type Change struct {
	Revision int64
	Events   []Event       // by key, without Prev
	First    time.Duration // when a watch delivered it first
}

// Joined is what all watches saw together.
type Joined struct {
	changes []Change // from revision 2 on
	// states[i] is the key space at revision i+1.
	states []*State
}

// Head is the last revision.
func (j *Joined) Head() int64 { return int64(len(j.states)) }

// At is the key space at a revision.
func (j *Joined) At(revision int64) (*State, bool) {
	if revision < 1 || revision > j.Head() {
		return nil, false
	}
	return j.states[revision-1], true
}

// Change is what happened at a revision.
func (j *Joined) Change(revision int64) (*Change, bool) {
	if revision < 2 || revision > j.Head() {
		return nil, false
	}
	return &j.changes[revision-2], true
}

// joining is one revision while the watches are read.
type joining struct {
	events map[string]Event
	from   map[string]string // which watch said so first
	first  time.Duration
}

// Join puts together what the watches saw, and replays it. Where they contradict each other, a revision is missing, or an
// event does not follow from those before it, it says so and ends there.
func Join(watches []*Watch) (*Joined, []Violation) {
	f := &findings{check: "join"}
	at := map[int64]*joining{}
	for _, w := range watches {
		for _, d := range w.Deliveries() {
			for _, e := range d.Events {
				if at[e.Mod] == nil {
					at[e.Mod] = &joining{events: map[string]Event{}, from: map[string]string{}, first: d.At}
				}
				c := at[e.Mod]
				c.first = min(c.first, d.At)
				e.Prev = nil
				if before, ok := c.events[e.Key]; !ok {
					c.events[e.Key], c.from[e.Key] = e, w.Name
				} else if before != e {
					f.add("%s saw %v, but %s saw %v", c.from[e.Key], before, w.Name, e)
				}
			}
		}
	}
	j := &Joined{states: []*State{Empty()}}
	revisions := slices.Sorted(maps.Keys(at))
	for _, revision := range revisions {
		if revision != j.Head()+1 {
			f.add("revisions %d to %d are in no watch, but %d is", j.Head()+1, revision-1, revision)
			break
		}
		c := at[revision]
		change := Change{Revision: revision, First: c.first}
		for _, key := range slices.Sorted(maps.Keys(c.events)) {
			change.Events = append(change.Events, c.events[key])
		}
		j.states = append(j.states, replay(f, j.states[len(j.states)-1], change))
		j.changes = append(j.changes, change)
	}
	return j, f.all
}

// replay is the state after a change. What the events say of their keys must follow from the state before.
func replay(f *findings, s *State, c Change) *State {
	e := edit{State: *s}
	e.Revision = c.Revision
	for _, event := range c.Events {
		if event.Deleted {
			if !e.remove(event.Key) {
				f.add("%v, but it was not there", event)
			}
			continue
		}
		e.put(Action{Key: event.Key, Value: event.Value, Lease: event.LeaseID}, c.Revision)
		if kv, _ := e.Get(event.Key); kv != event.KV {
			f.add("at %d a watch saw %v, but by the events before it is %v", c.Revision, event.KV, kv)
		}
	}
	return &e.State
}
