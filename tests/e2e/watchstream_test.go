package e2e

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func watchStreamCases() []testCase {
	return []testCase{
		{name: "watch stream ids", run: streamIDs},
		{name: "watch stream refuses", run: streamRefuses},
		{name: "watch stream cancels", run: streamCancels},
		{name: "watch stream fragments", run: streamFragments},
		{name: "watch merges fragments", run: clientMergesFragments},
	}
}

// watchStream is a bare watch stream: what clientv3 hides can be seen.
type watchStream struct {
	pb.Watch_WatchClient
	t *testing.T
}

func openWatch(t *testing.T, s *system) watchStream {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(s.Conn(t, s.Endpoints()[0])).Watch(ctx)
	require.NoError(t, err)
	return watchStream{stream, t}
}

func (w watchStream) create(r *pb.WatchCreateRequest) {
	w.t.Helper()
	require.NoError(w.t, w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
}

func (w watchStream) cancel(id int64) {
	w.t.Helper()
	require.NoError(w.t, w.Send(&pb.WatchRequest{
		RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}},
	}))
}

func (w watchStream) next() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.Recv()
	require.NoError(w.t, err)
	return r
}

func streamIDs(t *testing.T, s *system) {
	w, k := openWatch(t, s), []byte(key(t, "k"))
	w.create(&pb.WatchCreateRequest{Key: k})
	r := w.next()
	require.True(t, r.Created)
	require.Zero(t, r.WatchId, "the first id that the server gives")
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 7})
	require.EqualValues(t, 7, w.next().WatchId)
	w.create(&pb.WatchCreateRequest{Key: k})
	require.EqualValues(t, 1, w.next().WatchId)
	revision := put(t, s, string(k), "v")
	seen := map[int64]bool{}
	for range 3 {
		r := w.next()
		require.Len(t, r.Events, 1)
		require.Equal(t, revision, r.Events[0].Kv.ModRevision)
		seen[r.WatchId] = true
	}
	require.Equal(t, map[int64]bool{0: true, 1: true, 7: true}, seen)
}

func streamRefuses(t *testing.T, s *system) {
	w, k := openWatch(t, s), []byte(key(t, "k"))
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 3})
	require.True(t, w.next().Created)
	for _, c := range []struct {
		request *pb.WatchCreateRequest
		reason  string
	}{
		{&pb.WatchCreateRequest{Key: k, WatchId: 3}, "mvcc: duplicate watch ID provided on the WatchStream"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}, "mvcc: watcher range is empty"},
		{&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("b")}, "mvcc: watcher range is empty"},
	} {
		w.create(c.request)
		r := w.next()
		require.True(t, r.Canceled, "%v", c.request)
		require.True(t, r.Created)
		require.EqualValues(t, -1, r.WatchId)
		require.Equal(t, c.reason, r.CancelReason)
		require.Zero(t, r.CompactRevision)
	}
	put(t, s, string(k), "v")
	require.Len(t, w.next().Events, 1, "the others on the stream go on")
}

func streamCancels(t *testing.T, s *system) {
	w, k := openWatch(t, s), []byte(key(t, "k"))
	w.create(&pb.WatchCreateRequest{Key: k})
	w.create(&pb.WatchCreateRequest{Key: k})
	require.True(t, w.next().Created)
	require.True(t, w.next().Created)
	w.cancel(99) // unknown: nothing comes
	w.cancel(0)
	r := w.next()
	require.True(t, r.Canceled)
	require.Zero(t, r.WatchId)
	require.Empty(t, r.CancelReason)
	put(t, s, string(k), "v")
	r = w.next()
	require.EqualValues(t, 1, r.WatchId)
	require.Len(t, r.Events, 1)
}

const mebibyte = 1 << 20

// putLarge writes count values of 1 MiB.
func putLarge(t *testing.T, s *system, prefix string, count int) (first int64) {
	t.Helper()
	for i := range count {
		revision := put(t, s, fmt.Sprintf("%s%d", prefix, i), string(bytes.Repeat([]byte{'x'}, mebibyte)))
		if i == 0 {
			first = revision
		}
	}
	return first
}

// Asked to, the server keeps each response below its bound for requests, by cutting one into fragments.
func streamFragments(t *testing.T, s *system) {
	const count, boundBytes = 5, requestBytesMax + mebibyte/2
	prefix := key(t, "")
	first := putLarge(t, s, prefix, count)
	w := openWatch(t, s)
	w.create(&pb.WatchCreateRequest{Key: []byte(prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(prefix)), StartRevision: first, Fragment: true})
	require.True(t, w.next().Created)
	var revisions []int64
	for len(revisions) < count {
		r := w.next()
		size := 0
		for _, e := range r.Events {
			size += len(e.Kv.Value)
			revisions = append(revisions, e.Kv.ModRevision)
		}
		require.LessOrEqual(t, size, boundBytes)
		if len(revisions) == count {
			require.False(t, r.Fragment, "the last one is no fragment")
		}
	}
	for i, revision := range revisions {
		require.Equal(t, first+int64(i), revision)
	}
}

func clientMergesFragments(t *testing.T, s *system) {
	const count = 5
	prefix := key(t, "")
	first := putLarge(t, s, prefix, count)
	watch := s.client.Watch(bounded(t), prefix, clientv3.WithPrefix(), clientv3.WithRev(first), clientv3.WithFragment())
	for i, e := range collect(t, watch, count) {
		require.Equal(t, first+int64(i), e.Kv.ModRevision)
		require.Len(t, e.Kv.Value, mebibyte)
	}
}
