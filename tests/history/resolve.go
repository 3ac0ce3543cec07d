package history

import (
	"fmt"
	"slices"
	"time"
)

// Resolved is the operations with what became of those whose outcome was unknown.
type Resolved struct {
	// Ops are those that happened: the acknowledged ones, those of unknown outcome that are in the history, and the ends
	// of leases. Serializable reads are not among them.
	Ops []Resolution
	// Expired are the changes that ended a lease.
	Expired []*Change
	owner   map[int64]int // revision to index in Ops
}

// Resolution is one operation that happened.
type Resolution struct {
	Op
	// Change is what a write changed; nil for what changed nothing.
	Change *Change
	// Guessed: the client was not told, only the revision is known.
	Guessed bool
}

// resolver is Resolve at work.
type resolver struct {
	j      *Joined
	values map[string]int64 // each value's revision
	leases map[int64]*Lease
	out    Resolved
	f      findings
	lost   []*Op // deletes of unknown outcome
}

// Resolve finds the cause of each revision. What is acknowledged and missing, done twice, done although refused, or done
// and asked for by nobody is a violation.
func Resolve(ops []Op, leases []*Lease, j *Joined) (*Resolved, []Violation) {
	r := &resolver{j: j, leases: map[int64]*Lease{}, values: map[string]int64{}, out: Resolved{owner: map[int64]int{}}, f: findings{check: "cause"}}
	for _, l := range leases {
		r.leases[l.ID] = l
	}
	r.indexValues()
	for i := range ops {
		r.take(&ops[i])
	}
	r.unowned()
	return &r.out, r.f.all
}

// indexValues finds each value's revision; one that was put twice was carried out twice.
func (r *resolver) indexValues() {
	for _, c := range r.j.changes {
		for _, e := range c.Events {
			if e.Deleted {
				continue
			}
			if before, again := r.values[e.Value]; again {
				r.f.add("carried out twice: the value %q was put at %d and at %d", brief(e.Value), before, c.Revision)
			}
			r.values[e.Value] = c.Revision
		}
	}
}

// found is the revision at which one of the request's values was put.
func (r *resolver) found(q *Request) (int64, bool) {
	for _, value := range q.values() {
		if revision, ok := r.values[value]; ok {
			return revision, true
		}
	}
	return 0, false
}

func (r *resolver) take(op *Op) {
	revision, found := r.found(&op.Request)
	switch {
	case op.Outcome == NotDone && found:
		r.f.add("refused, but done at %d: %v", revision, op)
	case op.Outcome == NotDone:
	case op.Outcome == Unknown && !op.Request.Writes():
	case op.Outcome == Unknown && found:
		guessed := *op
		guessed.Response = Response{Revision: revision}
		r.own(revision, Resolution{Op: guessed, Guessed: true}, never)
	case op.Outcome == Unknown:
		if len(op.Request.values()) == 0 {
			r.lost = append(r.lost, op)
		}
	case op.Request.Serializable:
	case changed(op):
		r.own(op.Response.Revision, Resolution{Op: *op}, op.Return)
	default:
		if found {
			r.f.add("answered that it changed nothing, but done at %d: %v", revision, op)
		}
		r.out.Ops = append(r.out.Ops, Resolution{Op: *op})
	}
}

// changed tells whether the answer says that something changed.
func changed(op *Op) bool {
	actions := op.Request.Then
	if !op.Response.Succeeded {
		actions = op.Request.Else
	}
	for i, a := range actions {
		if a.Kind == Put || a.Kind == Delete && i < len(op.Response.Results) && op.Response.Results[i].Count > 0 {
			return true
		}
	}
	return false
}

// own makes the operation the cause of the revision. It happened before its client was told, by, and before anybody saw it.
func (r *resolver) own(revision int64, o Resolution, by time.Duration) {
	c, ok := r.j.Change(revision)
	if !ok {
		r.f.add("acknowledged, and in no history: %v", &o.Op)
		return
	}
	if other, twice := r.out.owner[revision]; twice {
		r.f.add("one revision, two operations: %v and %v", &r.out.Ops[other].Op, &o.Op)
		return
	}
	if c.First < o.Call {
		r.f.add("seen at %v, before it was asked for: %v", c.First, &o.Op)
	}
	before, _ := r.j.At(revision - 1)
	if !caused(before, &o, c) {
		r.f.add("at %d this was done: %v; but it was asked for %v", revision, c.Events, &o.Op)
	}
	o.Change = c
	o.Return = max(o.Call, min(c.First, by))
	r.out.owner[revision] = len(r.out.Ops)
	r.out.Ops = append(r.out.Ops, o)
}

// caused tells whether the request, applied to the state before, makes exactly the change.
func caused(before *State, o *Resolution, c *Change) bool {
	after, response := before.Apply(&o.Request)
	if after == before || (!o.Guessed && response.Succeeded != o.Response.Succeeded) {
		return false
	}
	events := difference(before, after)
	return slices.EqualFunc(events, c.Events, func(a, b Event) bool { return a == b })
}

// difference is the events that lead from one state to the next, by key.
func difference(before, after *State) (events []Event) {
	for _, kv := range after.kvs {
		if kv.Mod == after.Revision {
			events = append(events, Event{KV: kv})
		}
	}
	for _, kv := range before.kvs {
		if _, there := after.Get(kv.Key); !there {
			events = append(events, Event{KV: KV{Key: kv.Key, Mod: after.Revision}, Deleted: true})
		}
	}
	slices.SortFunc(events, func(a, b Event) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	})
	return events
}

// unowned finds what caused the revisions that no operation with a value or an answer did: a delete of unknown outcome, or
// the end of a lease.
func (r *resolver) unowned() {
	for i := range r.j.changes {
		c := &r.j.changes[i]
		if _, owned := r.out.owner[c.Revision]; owned {
			continue
		}
		if r.lostDelete(c) {
			continue
		}
		if id := endedLease(r.j.states[i], *c); id != 0 {
			r.out.Expired = append(r.out.Expired, c)
			request := Request{}
			for _, e := range c.Events {
				request.Then = append(request.Then, Action{Kind: Delete, Key: e.Key})
			}
			by := never
			if l := r.leases[id]; l != nil {
				by = l.endsBy()
			}
			r.own(c.Revision, Resolution{Guessed: true, Op: Op{
				Client: fmt.Sprintf("lease %x", id), Request: request, Call: r.putAt(r.j.states[i], c), Response: Response{Revision: c.Revision},
			}}, by)
			continue
		}
		r.f.add("nobody asked for what happened at %d: %v", c.Revision, c.Events)
	}
}

// putAt is when the newest of the keys that a change deletes was asked for: the change came later.
func (r *resolver) putAt(before *State, c *Change) (call time.Duration) {
	for _, e := range c.Events {
		kv, _ := before.Get(e.Key)
		if owner, ok := r.out.owner[kv.Mod]; ok {
			call = max(call, r.out.Ops[owner].Call)
		}
	}
	return call
}

func (r *resolver) lostDelete(c *Change) bool {
	for i, op := range r.lost {
		o := Resolution{Op: *op, Guessed: true}
		before, _ := r.j.At(c.Revision - 1)
		if op.Call > c.First || !caused(before, &o, c) {
			continue
		}
		o.Response = Response{Revision: c.Revision}
		r.own(c.Revision, o, never)
		r.lost = slices.Delete(r.lost, i, i+1)
		return true
	}
	return false
}
