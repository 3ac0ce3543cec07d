package history

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// CheckOrder says where the revisions of operations contradict real time: what was asked for after another operation had
// returned has at least its revision, and a higher one if it changed something. It is part of what CheckLinearizable
// checks, but says which two operations are at odds.
func CheckOrder(r *Resolved) []Violation {
	f := &findings{check: "real time"}
	byReturn, byCall := make([]*Resolution, len(r.Ops)), make([]*Resolution, len(r.Ops))
	for i := range r.Ops {
		byReturn[i], byCall[i] = &r.Ops[i], &r.Ops[i]
	}
	slices.SortFunc(byReturn, func(a, b *Resolution) int { return int(a.Return - b.Return) })
	slices.SortFunc(byCall, func(a, b *Resolution) int { return int(a.Call - b.Call) })
	var newest *Resolution
	next := 0
	for _, o := range byCall {
		for ; next < len(byReturn) && byReturn[next].Return < o.Call; next++ {
			if newest == nil || byReturn[next].Response.Revision > newest.Response.Revision {
				newest = byReturn[next]
			}
		}
		if newest == nil {
			continue
		}
		if o.Response.Revision < newest.Response.Revision || (o.Change != nil && o.Response.Revision == newest.Response.Revision) {
			f.add("%v came after %v had returned", &o.Op, &newest.Op)
		}
	}
	return f.all
}

// CheckFuture says which operations were told a revision that was asked for only after they had returned.
func CheckFuture(ops []Op, r *Resolved) []Violation {
	f := &findings{check: "future"}
	for i := range ops {
		op := &ops[i]
		owner, ok := r.owner[op.Response.Revision]
		if op.Outcome == Done && ok && r.Ops[owner].Call > op.Return {
			f.add("%v was answered before %v was asked for", op, &r.Ops[owner].Op)
		}
	}
	return f.all
}

// CheckLinearizable holds the operations against a model of the key space. Within the time given it finds an order or
// that there is none; else it says so as a violation of its own, for then nobody knows.
func CheckLinearizable(r *Resolved, within time.Duration) []Violation {
	f := &findings{check: "linearizability"}
	clients := map[string]int{}
	operations := make([]porcupine.Operation, 0, len(r.Ops))
	for i := range r.Ops {
		o := &r.Ops[i]
		if _, ok := clients[o.Client]; !ok {
			clients[o.Client] = len(clients)
		}
		operations = append(operations, porcupine.Operation{
			ClientId: clients[o.Client], Input: o, Output: o, Call: int64(o.Call), Return: int64(o.Return),
		})
	}
	switch porcupine.CheckOperationsTimeout(model(), operations, within) {
	case porcupine.Ok:
	case porcupine.Illegal:
		f.add("no order of the %d operations explains what they answered", len(operations))
	default:
		f.add("UNKNOWN: no order of the %d operations was found within %v, and no proof that there is none", len(operations), within)
	}
	return f.all
}

// model is the key space as porcupine wants it.
func model() porcupine.Model {
	return porcupine.Model{
		Init: func() any { return Empty() },
		Step: func(state, _, output any) (bool, any) {
			s, ok := state.(*State)
			o, also := output.(*Resolution)
			if !ok || !also {
				panic(fmt.Sprintf("history: %T and %T", state, output))
			}
			return step(s, o)
		},
		Equal: func(a, b any) bool {
			x, y := a.(*State), b.(*State) //nolint:forcetypeassert // Init and Step give nothing else
			return x == y || (x.Revision == y.Revision && slices.Equal(x.kvs, y.kvs))
		},
		Hash: func(state any) uint64 {
			s := state.(*State) //nolint:forcetypeassert // Init and Step give nothing else
			return s.hash*31 + uint64(s.Revision)
		},
	}
}

func step(s *State, o *Resolution) (bool, *State) {
	// The revision tells most that cannot be next without applying them.
	want := o.Response.Revision
	if o.Change != nil {
		want--
	}
	if s.Revision != want {
		return false, s
	}
	if o.Request.Revision != 0 { // a read of the past: of the present it says the revision alone
		return true, s
	}
	next, response := s.Apply(&o.Request)
	if o.Guessed {
		return next.Revision == o.Response.Revision, next
	}
	return response.equal(o.Response), next
}
