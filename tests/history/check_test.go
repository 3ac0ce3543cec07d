package history

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sample is a small record in which everything is right, for the cases to break.
type sample struct {
	Record
	all, past *Watch
	kept      *Lease
}

const ms = time.Millisecond

func put(key, value string) Action { return Action{Kind: Put, Key: key, Value: value} }

func at(ms1, ms2 time.Duration) Op { return Op{Call: ms1 * ms, Return: ms2 * ms} }

// newSample: a put at 2, another at 3, a transaction at 4, a delete at 5, a key on a lease at 6 that ends at 7, a put of
// unknown outcome at 8 and a delete of unknown outcome at 9.
func newSample() *sample {
	s := &sample{}
	state := Empty()
	states := []*State{state}
	s.all = &Watch{Name: "all", Key: "\x00", End: "\x00", Start: 1, WantsPrev: true}
	s.past = &Watch{Name: "past", Key: "a", End: "", Start: 3}
	s.AddWatch(s.all)
	s.AddWatch(s.past)
	s.kept = &Lease{ID: 7, TTL: 100 * ms, GrantCall: 90 * ms}
	s.kept.Granted(Done, 100*ms)
	s.kept.Renew(Renewal{120 * ms, 125 * ms})
	s.AddLease(s.kept)
	do := func(client string, op Op, request Request) {
		before := state
		op.Client, op.Request, op.Conn = client, request, 1
		state, op.Response = state.Apply(&request)
		if request.Revision != 0 {
			_, op.Response = states[request.Revision-1].Apply(&request)
			op.Response.Revision = state.Revision
		}
		if state != before {
			states = append(states, state)
		}
		if op.Outcome != Done {
			op.Response = Response{}
		}
		s.Add(op)
		s.deliver(before, state, op.Return)
	}
	do("c1", at(10, 20), Request{Then: []Action{put("a", "1")}})
	do("c1", at(30, 40), Request{Then: []Action{put("a", "2")}})
	do("c2", at(35, 45), Request{Then: []Action{{Kind: Range, Key: "a", End: "c"}}})
	do("c1", at(50, 60), Request{
		Txn: true, Compares: []Compare{{Key: "a", Value: "2"}}, Then: []Action{put("a", "3"), put("b", "4")}, Else: []Action{{Kind: Range, Key: "a"}},
	})
	do("c2", at(65, 70), Request{Serializable: true, Then: []Action{{Kind: Range, Key: "a"}}})
	do("c2", at(75, 80), Request{Revision: 2, Then: []Action{{Kind: Range, Key: "a"}}})
	do("c1", at(80, 85), Request{Then: []Action{{Kind: Delete, Key: "a", Prev: true}}})
	do("c1", at(100, 105), Request{Then: []Action{{Kind: Put, Key: "lease/7", Value: "5", Lease: 7}}})
	before := state
	state, _ = state.Apply(&Request{Then: []Action{{Kind: Delete, Key: "lease/7"}}})
	s.deliver(before, state, 230*ms)
	lost := at(240, 250)
	lost.Outcome = Unknown
	do("c1", lost, Request{Then: []Action{put("a", "6")}})
	lost = at(260, 270)
	lost.Outcome = Unknown
	do("c1", lost, Request{Then: []Action{{Kind: Delete, Key: "a"}}})
	refused := at(280, 290)
	refused.Client, refused.Outcome, refused.Request = "c1", NotDone, Request{Then: []Action{put("a", "7")}}
	s.Add(refused)
	never := at(291, 292)
	never.Client, never.Outcome, never.Request = "c1", Unknown, Request{Then: []Action{put("a", "8")}}
	s.Add(never)
	s.all.Add(Delivery{At: 300 * ms, Revision: state.Revision, Bookmark: true})
	s.past.Add(Delivery{At: 300 * ms, Revision: state.Revision, Bookmark: true})
	for _, node := range []string{"n1", "n2"} {
		s.AddHash(Hash{Node: node, Revision: 5, Compact: 2, Hash: 77})
	}
	return s
}

// deliver gives the change between two states to the watches.
func (s *sample) deliver(before, after *State, at time.Duration) {
	if after == before {
		return
	}
	for _, w := range s.watches {
		d := Delivery{At: at, Revision: after.Revision}
		for _, e := range difference(before, after) {
			if !w.covers(e.Key) || after.Revision < w.Start {
				continue
			}
			if kv, there := before.Get(e.Key); there && w.WantsPrev {
				e.Prev = &kv
			}
			d.Events = append(d.Events, e)
		}
		if len(d.Events) > 0 {
			w.Add(d)
		}
	}
}

func check(s *sample) []Violation {
	_, violations := Check(&s.Record, time.Minute)
	return violations
}

// op is the operation with the i-th number, counted from the back if negative.
func (s *sample) op(i int) *Op { return &s.ops[i] }

// event is the first event of the watch's delivery.
func event(w *Watch, i int) *Event { return &w.deliveries[i].Events[0] }

// cut removes a delivery.
func cut(w *Watch, i int) {
	w.deliveries = append(append([]Delivery{}, w.deliveries[:i]...), w.deliveries[i+1:]...)
}

func TestRightRecord(t *testing.T) {
	s := newSample()
	require.Empty(t, check(s))
	j, _ := Join(s.Watches())
	require.EqualValues(t, 9, j.Head())
}

// Each case breaks one thing; the check must say so in these words, under this name.
func TestChecksSeeWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(s *sample)
		want  string
	}{
		"acknowledged and missing": {func(s *sample) {
			s.Add(Op{Client: "c9", Call: 295 * ms, Return: 296 * ms, Request: Request{Then: []Action{put("z", "99")}}, Response: Response{Revision: 10, Succeeded: true, Results: []Result{{}}}})
		}, "cause: acknowledged, and in no history"},
		"two operations at one revision": {func(s *sample) {
			s.Add(Op{Client: "c9", Call: 295 * ms, Return: 296 * ms, Request: Request{Then: []Action{put("z", "99")}}, Response: Response{Revision: 2, Succeeded: true, Results: []Result{{}}}})
		}, "cause: one revision, two operations"},
		"done twice": {func(s *sample) {
			event(s.all, 1).Value = "1"
			event(s.past, 0).Value = "1"
		}, "cause: carried out twice"},
		"refused but done": {func(s *sample) { s.op(0).Outcome = NotDone }, "cause: refused, but done"},
		"said to have changed nothing": {func(s *sample) {
			s.op(3).Response.Succeeded = false
			s.op(3).Response.Results = []Result{{}}
		}, "cause: answered that it changed nothing"},
		"another branch": {func(s *sample) {
			s.op(3).Request.Else = []Action{put("a", "9")}
			s.op(3).Response.Succeeded = false
		}, "cause: at 4 this was done"},
		"nobody asked":       {func(s *sample) { s.ops = append(s.ops[:1:1], s.ops[2:]...) }, "cause: nobody asked"},
		"seen before asked":  {func(s *sample) { s.op(0).Call, s.op(0).Return = 21*ms, 22*ms }, "cause: seen at 20ms, before it was asked"},
		"watches contradict": {func(s *sample) { event(s.past, 1).Value = "other" }, "join: all saw"},
		"no watch has it": {func(s *sample) {
			cut(s.all, 1)
			cut(s.past, 0)
		}, "join: revisions 3 to 3 are in no watch"},
		"wrong version": {func(s *sample) {
			event(s.all, 1).Version = 7
			event(s.past, 0).Version = 7
		}, "join: at 3 a watch saw"},
		"delete of nothing": {func(s *sample) {
			s.all.deliveries[4].Events = append(s.all.deliveries[4].Events, Event{KV: KV{Key: "zz", Mod: 6}, Deleted: true})
		}, "join: 6: zz deleted, but it was not there"},
		"stale linearizable read": {func(s *sample) {
			s.op(2).Call, s.op(2).Return, s.op(2).Response = 41*ms, 45*ms, Response{Revision: 2, Succeeded: true, Results: []Result{{KVs: []KV{{Key: "a", Value: "1", Create: 2, Mod: 2, Version: 1}}, Count: 1}}}
		}, "real time: c2"},
		"no order": {func(s *sample) {
			s.op(2).Call, s.op(2).Return, s.op(2).Response = 41*ms, 45*ms, Response{Revision: 2, Succeeded: true, Results: []Result{{KVs: []KV{{Key: "a", Value: "1", Create: 2, Mod: 2, Version: 1}}, Count: 1}}}
		}, "linearizability: no order"},
		"not what a write answers":  {func(s *sample) { s.op(6).Response.Results[0].KVs[0].Value = "other" }, "linearizability: no order"},
		"wrong read":                {func(s *sample) { s.op(2).Response.Results[0].KVs[0].Value = "other" }, "read: 3 holds"},
		"wrong serializable read":   {func(s *sample) { s.op(4).Response.Results = []Result{{}} }, "read: 4 holds"},
		"wrong read of the past":    {func(s *sample) { s.op(5).Response.Results = []Result{{}} }, "read: 2 holds"},
		"read of what nobody knows": {func(s *sample) { s.op(4).Response.Revision = 99 }, "read: no watch knows the revision 99"},
		"answer from the future": {func(s *sample) {
			s.op(4).Response.Revision = 9
			s.op(4).Response.Results = []Result{{}}
		}, "future: c2"},
		"serializable reads go back": {func(s *sample) {
			again := *s.op(4)
			again.Call, again.Return = 71*ms, 72*ms
			again.Response = Response{Revision: 2, Succeeded: true, Results: []Result{{KVs: []KV{{Key: "a", Value: "1", Create: 2, Mod: 2, Version: 1}}, Count: 1}}}
			s.Add(again)
		}, "read: a serializable read went back"},
		"gap":                              {func(s *sample) { cut(s.past, 1) }, "watch: past, response 1, missed"},
		"bookmark past what was delivered": {func(s *sample) { s.past.deliveries = s.past.deliveries[len(s.past.deliveries)-1:] }, "watch: past, response 0, missed"},
		"twice": {func(s *sample) {
			s.past.deliveries = append([]Delivery{s.past.deliveries[0]}, s.past.deliveries...)
		}, "watch: past, response 1: 3: a=2"},
		"out of order": {func(s *sample) {
			d := s.past.deliveries
			d[0], d[1] = d[1], d[0]
		}, "came again, out of order, or split"},
		"split revision": {func(s *sample) {
			d := s.all.deliveries[2]
			first, second := d, d
			first.Events, second.Events = d.Events[:1], d.Events[1:]
			s.all.deliveries = append(append(append([]Delivery{}, s.all.deliveries[:2]...), first, second), s.all.deliveries[3:]...)
		}, "watch: all, response 2: at 4 it delivered"},
		"one key twice in a revision": {func(s *sample) {
			d := &s.all.deliveries[2]
			d.Events = append(append([]Event{}, d.Events...), d.Events[0])
		}, "watch: all, response 2: at 4 it delivered"},
		"not after the bookmark": {func(s *sample) {
			s.past.deliveries = append([]Delivery{{At: 0, Revision: 3, Bookmark: true}}, s.past.deliveries...)
		}, "came after a progress notice at 3"},
		"before the start": {func(s *sample) { s.past.Start = 4 }, "watch: past, response 0: 3: a=2"},
		"foreign key": {func(s *sample) {
			s.past.deliveries[0].Events = append([]Event{}, s.all.deliveries[2].Events[1])
		}, "watch: past"},
		"a put past a filter":  {func(s *sample) { s.past.NoPut = true }, "watch: past, response 0: at 3 it delivered"},
		"no previous value":    {func(s *sample) { event(s.all, 1).Prev = nil }, "lacks its previous value"},
		"wrong previous value": {func(s *sample) { event(s.all, 1).Prev = &KV{Key: "a", Value: "0"} }, "has the previous value"},
		"previous of nothing":  {func(s *sample) { event(s.all, 0).Prev = &KV{Key: "a"} }, "has the previous value"},
		"previous not asked":   {func(s *sample) { event(s.past, 0).Prev = &KV{Key: "a"} }, "that nobody asked for"},
		"low header":           {func(s *sample) { s.all.deliveries[1].Revision = 2 }, "the header says 2, below the event at 3"},
		"compacted for nothing": {func(s *sample) {
			s.AddCompaction(Compaction{Revision: 9})
			s.past.Finish(fmt.Errorf("compacted"), 5)
		}, "watch: past ended as compacted at 5, but it stood at 10"},
		"compacted by nobody": {func(s *sample) { s.past.Finish(fmt.Errorf("compacted"), 11) }, "nobody asked for more than 0"},
		"early end of a lease": {func(s *sample) {
			for i := range s.all.deliveries {
				if s.all.deliveries[i].Revision == 7 {
					s.all.deliveries[i].At = 219 * ms
				}
			}
		}, "lease: lease 7 of 100ms was gone at 219ms"},
		"early word of the end":     {func(s *sample) { s.kept.Went(Gone{189 * ms, "keepalive"}) }, "lease: lease 7 of 100ms was gone at 189ms"},
		"keepalive of a dead lease": {func(s *sample) { s.kept.Renew(Renewal{231 * ms, 232 * ms}) }, "lease: lease 7"},
		"key of a lease that was revoked": {func(s *sample) {
			s.kept.Revoke(110 * ms)
			s.kept.Revoked(115 * ms)
			kv := KV{Key: "lease/7", Value: "5", Create: 6, Mod: 6, Version: 1, LeaseID: 7}
			s.Add(Op{
				Client: "c2", Call: 120 * ms, Return: 130 * ms, Request: Request{Then: []Action{{Kind: Range, Key: "lease/7"}}},
				Response: Response{Revision: 6, Succeeded: true, Results: []Result{{KVs: []KV{kv}, Count: 1}}},
			})
		}, "real time: c2"},
		"foreign lease": {func(s *sample) { s.leases = nil }, "lease: nobody asked for lease 7"},
		"hashes differ": {func(s *sample) { s.hashes[1].Hash++ }, "hash: at 5, compacted 2, n1 has 0000004d and n2 has 0000004e"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSample()
			c.spoil(s)
			violations := check(s)
			var texts []string
			for _, v := range violations {
				texts = append(texts, v.String())
			}
			require.Contains(t, strings.Join(texts, "\n"), c.want)
		})
	}
}

// What is allowed must not be called wrong.
func TestChecksAllow(t *testing.T) {
	for name, spoil := range map[string]func(s *sample){
		"a lease that was revoked": func(s *sample) {
			s.kept.Revoke(200 * ms)
			s.kept.Went(Gone{201 * ms, "keepalive"})
		},
		"a previous value that was compacted": func(s *sample) {
			s.AddCompaction(Compaction{Revision: 3, Call: 30 * ms})
			event(s.all, 1).Prev = nil
		},
		"a watch that a compaction overtook": func(s *sample) {
			s.AddCompaction(Compaction{Revision: 8})
			s.past.deliveries = s.past.deliveries[:1]
			s.past.Finish(fmt.Errorf("compacted"), 8)
		},
		"serializable reads on two connections": func(s *sample) {
			again := *s.op(4)
			again.Call, again.Return, again.Conn = 71*ms, 72*ms, 2
			again.Response = Response{Revision: 2, Succeeded: true, Results: []Result{{KVs: []KV{{Key: "a", Value: "1", Create: 2, Mod: 2, Version: 1}}, Count: 1}}}
			s.Add(again)
		},
		"an unknown delete that came to nothing": func(s *sample) {
			lost := at(295, 296)
			lost.Client, lost.Outcome, lost.Request = "c1", Unknown, Request{Then: []Action{{Kind: Delete, Key: "b"}}}
			s.Add(lost)
		},
		"hashes of different compactions": func(s *sample) { s.hashes[1].Compact, s.hashes[1].Hash = 3, 5 },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSample()
			spoil(s)
			require.Empty(t, check(s))
		})
	}
}

// A check that finds no answer in time is no success.
func TestUnknownIsAFailure(t *testing.T) {
	var ops []Resolution
	// Reads at the same time with one answer that no order explains: the search has to try all subsets.
	for i := range 60 {
		ops = append(ops, Resolution{Op: Op{
			Client: fmt.Sprint(i), Call: 0, Return: time.Second, Request: Request{Then: []Action{{Kind: Range, Key: "a"}}},
			Response: Response{Revision: 1, Succeeded: true, Results: []Result{{}}},
		}})
	}
	ops = append(ops, Resolution{Op: Op{
		Client: "wrong", Call: 0, Return: time.Second, Request: Request{Then: []Action{{Kind: Range, Key: "a"}}},
		Response: Response{Revision: 1, Succeeded: true, Results: []Result{{Count: 1}}},
	}})
	violations := CheckLinearizable(&Resolved{Ops: ops}, 50*ms)
	require.Len(t, violations, 1)
	require.Contains(t, violations[0].Text, "UNKNOWN")
}
