package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/history"
)

// Everything is a watch from the first revision on.
func Everything(name string, prev bool) *history.Watch {
	return &history.Watch{Name: name, Key: "\x00", End: "\x00", Start: 1, WantsPrev: prev}
}

var errEnded = errors.New("the watch ended")

// Watch fills a watch by clientv3, which begins again where it was when a stream ends, until ctx is done. If progress is
// not 0, a progress notice is asked for so often.
func (w *Workload) Watch(ctx context.Context, c Client, h *history.Watch, progress time.Duration) {
	w.AddWatch(h)
	options := []clientv3.OpOption{clientv3.WithRev(h.Start)}
	if h.End != "" {
		options = append(options, clientv3.WithRange(h.End))
	}
	if h.WantsPrev {
		options = append(options, clientv3.WithPrevKV())
	}
	if h.NoPut {
		options = append(options, clientv3.WithFilterPut())
	}
	if h.NoDelete {
		options = append(options, clientv3.WithFilterDelete())
	}
	responses := c.Client.Watch(ctx, h.Key, options...)
	if progress != 0 {
		go func() {
			for rest(ctx, progress) {
				_ = c.RequestProgress(ctx) // nothing is promised for each single one
			}
		}()
	}
	for r := range responses {
		at := w.Now()
		if err := r.Err(); err != nil {
			h.Finish(err, r.CompactRevision)
			return
		}
		if d, ok := delivery(at, r.Header.Revision, events(r.Events), r.IsProgressNotify()); ok {
			h.Add(d)
		}
	}
	if ctx.Err() == nil {
		h.Finish(errEnded, 0)
	}
}

type events []*clientv3.Event

func delivery(at time.Duration, revision int64, list events, bookmark bool) (history.Delivery, bool) {
	d := history.Delivery{At: at, Revision: revision, Bookmark: bookmark}
	for _, e := range list {
		d.Events = append(d.Events, event(e))
	}
	return d, bookmark || len(list) > 0
}

func event(e *mvccpb.Event) history.Event {
	out := history.Event{KV: key(e.Kv), Deleted: e.Type == mvccpb.Event_DELETE}
	if e.PrevKv != nil {
		kv := key(e.PrevKv)
		out.Prev = &kv
	}
	return out
}

// Past watches everything from some revision of the last few on for a while, again and again, each a watch of its own.
func (w *Workload) Past(ctx context.Context, c Client) {
	rng := w.rand(c.Name)
	for n := 0; ctx.Err() == nil; n++ {
		const back, longest = 300, int64(4 * time.Second)
		start := max(1, w.Newest()-rng.Int64N(back))
		h := &history.Watch{Name: fmt.Sprintf("%s#%d", c.Name, n), Key: "\x00", End: "\x00", Start: start, WantsPrev: rng.IntN(2) == 0}
		if rng.IntN(3) == 0 {
			h.Key, h.End = sharedKey(rng), ""
		}
		h.NoPut, h.NoDelete = rng.IntN(5) == 0, rng.IntN(5) == 0
		bounded, cancel := context.WithTimeout(ctx, time.Duration(rng.Int64N(longest)))
		w.Watch(bounded, c, h, 200*time.Millisecond)
		<-bounded.Done() // one that was compacted away must not spin
		cancel()
	}
}

// Bare fills watches over a bare stream, with nothing between the record and the server: when the stream ends, a new watch
// begins after the last revision that the old one covered. ended is told why, and may be nil.
func (w *Workload) Bare(ctx context.Context, c Client, prev bool, ended func(error)) {
	next := int64(1)
	for n := 0; ctx.Err() == nil; n++ {
		h := &history.Watch{Name: fmt.Sprintf("%s#%d", c.Name, n), Key: "\x00", End: "\x00", Start: next, WantsPrev: prev}
		err := w.bare(ctx, c, h)
		if ctx.Err() != nil {
			return
		}
		if ended != nil {
			ended(err)
		}
		next = h.Next()
		rest(ctx, pauseAfterFailure)
	}
}

func (w *Workload) bare(ctx context.Context, c Client, h *history.Watch) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewWatchClient(c.ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: []byte(h.Key), RangeEnd: []byte(h.End), StartRevision: h.Start, PrevKv: h.WantsPrev, WatchId: 7}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			h.Finish(err, 0)
			return err
		}
		at := w.Now()
		if r.Canceled {
			h.Finish(errors.New(r.CancelReason), r.CompactRevision)
			return errors.New(r.CancelReason)
		}
		if r.Created {
			w.AddWatch(h)
			continue
		}
		list := make(events, len(r.Events))
		copy(list, r.Events)
		if d, ok := delivery(at, r.Header.Revision, list, len(list) == 0); ok {
			h.Add(d)
		}
	}
}

// Compact compacts now and then, never beyond what the given watches have seen.
func (w *Workload) Compact(ctx context.Context, c Client, every time.Duration, watches []*history.Watch) {
	const behind = 100
	last := int64(0)
	for rest(ctx, every) {
		to := w.Newest() - behind
		for _, h := range watches {
			seen, _ := h.Seen()
			to = min(to, seen)
		}
		if to <= last {
			continue
		}
		w.AddCompaction(history.Compaction{Revision: to, Call: w.Now()})
		bounded, cancel := context.WithTimeout(ctx, OpTimeout)
		if _, err := c.Client.Compact(bounded, to); err == nil {
			last = to
		}
		cancel()
	}
}
