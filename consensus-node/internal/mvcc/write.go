package mvcc

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// writer carries out one write request. It changes the State's tree at once
// and its revision at finish. As Values it also gives what the request itself
// has written, so that later parts of a Txn see it.
type writer struct {
	s    *State
	env  Env
	main int64
	eff  Effects
	ops  Ops
	// Most requests make one change; its effects lie here, not in an allocation
	// of their own.
	one struct {
		write [1]Write
		event [1]Event
	}
}

func (s *State) write(env Env) *writer {
	w := &writer{s: s, env: env, main: s.rev + 1}
	w.eff.Writes, w.eff.Events = w.one.write[:0], w.one.event[:0]
	return w
}

// finish makes the changes the State's newest revision.
func (w *writer) finish() Effects {
	if len(w.eff.Writes) == 0 {
		return Effects{Ops: w.ops.request()}
	}
	w.eff.Ops = w.ops.request()
	w.eff.Revision = w.main
	w.s.rev = w.main
	w.s.view = nil
	return w.eff
}

// Value implements Values.
func (w *writer) Value(rev Revision) (*mvccpb.KeyValue, error) {
	if rev.Main == w.main {
		return w.eff.Writes[rev.Sub].KV, nil
	}
	return w.env.Values.Value(rev)
}

// snapshot is the key space with what the request has written so far. etcd
// moves to the next revision with the first change, not before.
func (w *writer) snapshot() snapshot {
	now := w.s.snapshot
	if len(w.eff.Writes) > 0 {
		now.rev = w.main
	}
	return now
}

func (w *writer) nextRevision() Revision {
	return Revision{Main: w.main, Sub: int64(len(w.eff.Writes))}
}

// put stores a key-value; checkPut has passed.
func (w *writer) put(req *pb.PutRequest) (*pb.PutResponse, error) {
	w.ops.Puts++
	w.ops.PutBytes += len(req.Key) + len(req.Value)
	if req.PrevKv || req.IgnoreValue || req.IgnoreLease {
		w.ops.Ranges++
	}
	e, h := find(w.s.tree, req.Key)
	exists := h != nil && !h.last.tombstone()
	var prev *mvccpb.KeyValue
	if exists && (req.IgnoreValue || (req.PrevKv && !w.env.SkipReads)) {
		var err error
		if prev, err = load(w, h.last.rev); err != nil {
			return nil, err
		}
	}
	kv := &mvccpb.KeyValue{
		Key: req.Key, Value: req.Value, Lease: req.Lease,
		CreateRevision: w.main, ModRevision: w.main, Version: 1,
	}
	if exists {
		kv.CreateRevision, kv.Version = h.last.create, h.last.version+1
	}
	if req.IgnoreValue {
		kv.Value = prev.GetValue()
	}
	if req.IgnoreLease && exists {
		kv.Lease = h.lease
	}
	w.store(e, h, kv, prev)

	out := &struct { // one allocation for both
		resp   pb.PutResponse
		header pb.ResponseHeader
	}{}
	out.header.Revision = w.main
	out.resp.Header = &out.header
	if req.PrevKv && !w.env.SkipReads {
		out.resp.PrevKv = prev
	}
	return &out.resp, nil
}

// store puts kv on top of h, the history of e; nil if the key was not found.
func (w *writer) store(e entry, h *history, kv, prev *mvccpb.KeyValue) {
	rev := w.nextRevision()
	if h == nil || h.last.tombstone() {
		w.s.live++
	}
	w.event(Event{Type: mvccpb.Event_PUT, Kv: kv}, h, prev)
	w.eff.Writes = append(w.eff.Writes, Write{Rev: rev, KV: kv})
	w.moveLease(h, kv.Key, kv.Lease)
	next := h.next(record{rev: rev, create: kv.CreateRevision, version: kv.Version}, kv.Lease)
	if h == nil {
		w.s.tree.Set(entry{string(kv.Key), newSlot(next)})
		return
	}
	e.slot.Store(next)
}

// deleteRange reads what the response needs before it changes anything.
func (w *writer) deleteRange(req *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	w.ops.Deletes++
	if req.PrevKv {
		w.ops.Ranges++
	}
	var doomed []entry
	span{req.Key, req.RangeEnd}.each(w.s.tree, func(e entry, h *history) bool {
		if !h.last.tombstone() {
			doomed = append(doomed, e)
		}
		return true
	})
	resp := &pb.DeleteRangeResponse{Deleted: int64(len(doomed))}
	if req.PrevKv && !w.env.SkipReads {
		resp.PrevKvs = make([]*mvccpb.KeyValue, len(doomed))
		for i, e := range doomed {
			kv, err := load(w, e.slot.Load().last.rev)
			if err != nil {
				return nil, err
			}
			resp.PrevKvs[i] = kv
		}
	}
	w.eff.Writes = slices.Grow(w.eff.Writes, len(doomed))
	w.eff.Events = slices.Grow(w.eff.Events, len(doomed))
	for i, e := range doomed {
		var prev *mvccpb.KeyValue
		if resp.PrevKvs != nil {
			prev = resp.PrevKvs[i]
		}
		w.remove(e, e.slot.Load(), prev)
	}
	resp.Header = &pb.ResponseHeader{Revision: w.snapshot().rev}
	return resp, nil
}

// remove puts a tombstone on top of h, the history of e, a key that exists.
func (w *writer) remove(e entry, h *history, prev *mvccpb.KeyValue) {
	rev, key := w.nextRevision(), []byte(e.key)
	w.s.live--
	w.event(Event{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: w.main}}, h, prev)
	w.eff.Writes = append(w.eff.Writes, Write{Rev: rev, Tombstone: true, KV: &mvccpb.KeyValue{Key: key}})
	w.moveLease(h, key, 0)
	e.slot.Store(h.next(record{rev: rev}, 0))
}

// event adds an event with what was there before this main revision; prev is
// what was there just now, which may be the request's own.
func (w *writer) event(ev Event, h *history, prev *mvccpb.KeyValue) {
	if ev.creates() {
		h, prev = nil, nil
	}
	if h != nil {
		if r, ok := h.before(w.main); ok && !r.tombstone() {
			ev.Prev = r.rev
		}
	}
	if prev != nil && prev.ModRevision < w.main {
		ev.PrevKv = prev
	}
	w.eff.Events = append(w.eff.Events, ev)
}

// moveLease notes that key goes from the lease it hung on to another one.
func (w *writer) moveLease(h *history, key []byte, to int64) {
	var from int64
	var again bool // this request has written the key before
	if h != nil {
		from, again = h.lease, h.last.rev.Main == w.main
	}
	if from == to {
		return
	}
	if from != 0 && (!again || !cancel(&w.eff.Attach, from, key)) {
		w.eff.Detach = append(w.eff.Detach, LeaseKey{from, key})
	}
	if to != 0 && (!again || !cancel(&w.eff.Detach, to, key)) {
		w.eff.Attach = append(w.eff.Attach, LeaseKey{to, key})
	}
}

// cancel takes (id, key) out of list and says whether it was there.
func cancel(list *[]LeaseKey, id int64, key []byte) bool {
	i := slices.IndexFunc(*list, func(l LeaseKey) bool { return l.ID == id && bytes.Equal(l.Key, key) })
	if i < 0 {
		return false
	}
	*list = slices.Delete(*list, i, i+1)
	return true
}
