package contract

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
)

// watcher is a proxy's stream to a hub. It holds every response against the contract: no registration may find a hole
// before an interval, and what it may rely on is counted once.
type watcher struct {
	t      *testing.T
	stream watchv1.Hub_WatchClient
	cancel context.CancelFunc
	taken  uint64
	asked  uint64 // requests that register or cancel
	live   int64
	// silent keeps the marks back.
	silent  bool
	watches map[uint64]*watch
}

// watch is one registration.
type watch struct {
	covered int64
	joined  bool
	// deliveredTo is where the last delivery ended.
	deliveredTo int64
	previous    bool
	got         []string
	ended       *watchv1.Ended
}

func newWatcher(t *testing.T, conn grpc.ClientConnInterface) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	t.Cleanup(cancel)
	stream, err := watchv1.NewHubClient(conn).Watch(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&watchv1.HubRequest{Name: t.Name()}))
	return &watcher{t: t, stream: stream, cancel: cancel, watches: map[uint64]*watch{}}
}

// register begins a registration for one key.
func (w *watcher) register(id uint64, key string, next int64, options ...func(*watchv1.Registration)) *watch {
	w.t.Helper()
	r := &watchv1.Registration{Id: id, Key: []byte(key), NextRevision: next}
	for _, option := range options {
		option(r)
	}
	one := &watch{covered: next - 1, previous: r.GetPreviousKv()}
	w.watches[id] = one
	w.asked++
	require.NoError(w.t, w.stream.Send(&watchv1.HubRequest{Register: []*watchv1.Registration{r}}))
	return one
}

func (w *watcher) unregister(id uint64) {
	w.t.Helper()
	w.asked++
	require.NoError(w.t, w.stream.Send(&watchv1.HubRequest{Cancel: []uint64{id}}))
}

// mark tells the hub what was taken.
func (w *watcher) mark() {
	w.t.Helper()
	require.NoError(w.t, w.stream.Send(&watchv1.HubRequest{Taken: w.taken}))
}

// next takes one response in.
func (w *watcher) next() *watchv1.HubResponse {
	w.t.Helper()
	r, err := w.stream.Recv()
	require.NoError(w.t, err)
	require.LessOrEqual(w.t, r.GetTaken(), w.asked)
	require.False(w.t, r.GetLeaving())
	for _, d := range r.GetDeliveries() {
		require.Less(w.t, d.GetFrom(), d.GetTo())
		require.NotEmpty(w.t, d.GetRegistrations())
		for _, id := range d.GetRegistrations() {
			if one := w.watches[id]; one != nil {
				w.deliver(one, d)
			}
		}
	}
	for _, e := range r.GetEnded() {
		if one := w.watches[e.GetId()]; one != nil {
			one.ended, one.joined = e, false
		}
	}
	w.moveLive(r)
	if r.GetMarkAlone() {
		require.Empty(w.t, r.GetDeliveries())
		require.Empty(w.t, r.GetJoined())
		require.Empty(w.t, r.GetEnded())
		require.Equal(w.t, r.GetLiveFrom(), r.GetLiveTo())
		return r
	}
	w.taken++
	if !w.silent {
		w.mark()
	}
	return r
}

// moveLive takes in the interval that is for all that have joined, and then who joins at its end.
func (w *watcher) moveLive(r *watchv1.HubResponse) {
	w.t.Helper()
	if r.GetLiveTo() > r.GetLiveFrom() {
		for id, one := range w.watches {
			if one.joined {
				require.LessOrEqual(w.t, r.GetLiveFrom(), w.live, "a hole before (%d, %d] for %d", r.GetLiveFrom(), r.GetLiveTo(), id)
			}
		}
	}
	w.live = max(w.live, r.GetLiveTo())
	for _, one := range w.watches {
		if one.joined {
			one.covered = max(one.covered, w.live)
		}
	}
	for _, id := range r.GetJoined() {
		if one := w.watches[id]; one != nil {
			require.False(w.t, one.joined, "%d joins again", id)
			require.LessOrEqual(w.t, one.covered, r.GetLiveTo(), "%d joins before it begins", id)
			one.joined, one.covered = true, r.GetLiveTo()
		}
	}
}

func (w *watcher) deliver(one *watch, d *watchv1.Delivery) {
	w.t.Helper()
	require.Nil(w.t, one.ended, "a delivery after the end")
	require.LessOrEqual(w.t, d.GetFrom(), one.covered, "a hole before (%d, %d]", d.GetFrom(), d.GetTo())
	require.Greater(w.t, d.GetTo(), one.deliveredTo, "an interval that goes back")
	last := d.GetFrom()
	for _, r := range d.GetRevisions() {
		require.Greater(w.t, r.GetRevision(), last)
		last = r.GetRevision()
		if r.GetRevision() > one.covered {
			w.take(one, r)
		}
	}
	require.LessOrEqual(w.t, last, d.GetTo())
	one.covered, one.deliveredTo = max(one.covered, d.GetTo()), d.GetTo()
}

// take writes a revision down as "revision put value" or "revision delete", with the value before if it was asked for.
func (w *watcher) take(one *watch, r *feedv1.Revision) {
	w.t.Helper()
	for _, e := range r.GetEvents() {
		kv := w.decode(e.GetKv())
		require.Equal(w.t, string(e.GetKey()), string(kv.GetKey()))
		require.Equal(w.t, r.GetRevision(), kv.GetModRevision())
		what := fmt.Sprintf("%d put %s", r.GetRevision(), kv.GetValue())
		if e.GetDeleted() {
			what = fmt.Sprintf("%d delete", r.GetRevision())
		}
		if one.previous && len(e.GetPreviousKv()) > 0 {
			before := w.decode(e.GetPreviousKv())
			require.Equal(w.t, e.GetPreviousModRevision(), before.GetModRevision())
			what += fmt.Sprintf(" before %s", before.GetValue())
		}
		one.got = append(one.got, what)
	}
}

func (w *watcher) decode(data []byte) *mvccpb.KeyValue {
	w.t.Helper()
	kv := &mvccpb.KeyValue{}
	require.NoError(w.t, proto.Unmarshal(data, kv))
	return kv
}

// until takes responses in until a condition holds; the stream's deadline bounds it.
func (w *watcher) until(condition func() bool) {
	w.t.Helper()
	for !condition() {
		w.next()
	}
}

// sees takes responses in until a registration has joined and covers a revision, and holds what it got against what it should.
func (w *watcher) sees(one *watch, revision int64, want ...string) {
	w.t.Helper()
	w.until(func() bool { return one.joined && one.covered >= revision })
	require.Equal(w.t, want, one.got)
}
