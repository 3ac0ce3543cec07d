package watch

import (
	"bytes"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// invalidID is the watch id of responses that belong to no watch (clientv3.InvalidWatchID).
const invalidID = -1

// Texts of etcd's mvcc package, which reach clients as cancel reasons.
const (
	reasonEmptyRange  = "mvcc: watcher range is empty"
	reasonDuplicateID = "mvcc: duplicate watch ID provided on the WatchStream"
)

// Request takes in what the client asks. The request belongs to the Core from here on.
func (c *Core) Request(request *pb.WatchRequest) {
	if len(c.pending) > 0 || request.GetCreateRequest() != nil {
		c.pending = append(c.pending, request)
		return
	}
	c.handle(request, nil)
}

// Fences is the number of requests that wait for a fence. A fence taken from now on serves them all.
func (c *Core) Fences() int { return len(c.pending) }

// Fenced takes in a fence for the first n requests that wait.
func (c *Core) Fenced(n int, fence Fence) {
	n = min(n, len(c.pending))
	served := c.pending[:n]
	c.pending = slices.Clone(c.pending[n:])
	for _, request := range served {
		c.handle(request, &fence)
	}
	// What does not need a fence, and has no creation before it any more, need not wait for one.
	for len(c.pending) > 0 && c.pending[0].GetCreateRequest() == nil {
		c.handle(c.pending[0], nil)
		c.pending = c.pending[1:]
	}
}

// handle carries out one request; requests of no known kind do nothing, as in etcd.
func (c *Core) handle(request *pb.WatchRequest, fence *Fence) {
	switch union := request.GetRequestUnion().(type) {
	case *pb.WatchRequest_CreateRequest:
		c.create(union.CreateRequest, fence)
	case *pb.WatchRequest_CancelRequest:
		if union.CancelRequest != nil {
			c.cancel(union.CancelRequest.GetWatchId())
		}
	case *pb.WatchRequest_ProgressRequest:
		if union.ProgressRequest != nil {
			c.ready = append(c.ready, entry{all: true})
		}
	}
}

func (c *Core) create(request *pb.WatchCreateRequest, fence *Fence) {
	w, reason := c.admit(request, fence)
	if reason != "" {
		c.control(wire.WatchHead{
			Header: fence.Header, WatchID: invalidID, Created: true, Canceled: true, CancelReason: reason,
		})
		return
	}
	c.watches[w.id] = w
	c.live++
	c.ready = append(c.ready, entry{control: &wire.WatchHead{Header: fence.Header, WatchID: w.id, Created: true}, creates: w})
	if w.spec.Next < fence.CompactRevision { // one that starts at it still has everything from there on
		c.compacted(w, fence.CompactRevision)
		return
	}
	c.register(w)
}

// admit makes the watch, or says why not in etcd's words.
func (c *Core) admit(request *pb.WatchCreateRequest, fence *Fence) (*watch, string) {
	spec := Register{Key: request.GetKey(), End: request.GetRangeEnd(), Next: request.GetStartRevision()}
	if len(spec.Key) == 0 {
		spec.Key = []byte{0} // the smallest key
	}
	fromKey := len(spec.End) == 1 && spec.End[0] == 0
	switch {
	case spec.Next < 0:
		return nil, rpctypes.ErrCompacted.Error()
	case len(spec.End) > 0 && !fromKey && bytes.Compare(spec.Key, spec.End) >= 0:
		return nil, reasonEmptyRange
	}
	id := request.GetWatchId()
	switch _, taken := c.watches[id]; {
	case id == 0 || id == invalidID:
		for c.watches[c.nextID] != nil {
			c.nextID++
		}
		id = c.nextID
		c.nextID++
	case taken:
		return nil, reasonDuplicateID
	}
	if spec.Next == 0 {
		spec.Next = fence.Header.Revision + 1
	}
	spec.PreviousKV = request.GetPrevKv()
	spec.NoPut = slices.Contains(request.GetFilters(), pb.WatchCreateRequest_NOPUT)
	spec.NoDelete = slices.Contains(request.GetFilters(), pb.WatchCreateRequest_NODELETE)
	return &watch{
		id: id, spec: spec, fragment: request.GetFragment(), notify: request.GetProgressNotify(), idle: true,
		header: fence.Header, told: fence.Header.Revision, reached: fence.Header.Revision, covered: spec.Next - 1,
	}, ""
}

// cancel ends a watch at the client's wish; an unknown id is passed over in silence, as in etcd.
func (c *Core) cancel(id int64) {
	w, ok := c.watches[id]
	if !ok {
		return
	}
	c.unregister(w)
	c.forget(w)
	if !w.ended {
		w.ended = true
		c.live--
	}
	delete(c.watches, id)
	head := w.head()
	head.Canceled = true
	c.control(head)
}

// forget drops the events that wait for a watch.
func (c *Core) forget(w *watch) {
	for _, r := range w.queue {
		c.bytes -= r.events.Size(r.from, r.to)
	}
	for _, fragment := range w.fragments {
		c.bytes -= len(fragment)
	}
	w.queue, w.fragments, w.finish = nil, nil, nil
	c.suspended = slices.DeleteFunc(c.suspended, func(s *watch) bool { return s == w })
	c.ready = slices.DeleteFunc(c.ready, func(e entry) bool { return e.watch == w })
	w.inReady = false
	c.resume()
}

// Tick is one progress interval: watches that asked for notices and were sent nothing since the last tick get one.
func (c *Core) Tick() {
	for _, id := range c.ids() {
		w := c.watches[id]
		if !w.notify || w.ended {
			continue
		}
		if w.idle {
			c.ready = append(c.ready, entry{watch: w, notice: true})
		}
		w.idle = true
	}
}
