package e2e

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// What is strange, but allowed, or refused, and what it does to the others on the stream: nothing.
func watchEdgeCases() []testCase {
	return []testCase{
		{name: "watch at strange revisions", run: watchStrangeRevisions},
		{name: "watch with strange ids", run: watchStrangeIDs},
		{name: "watch of strange ranges", run: watchStrangeRanges},
		{name: "watch stream answers in order", run: watchAnswersInOrder},
		{name: "watch that was compacted keeps its id", run: watchCompactedKeepsItsID},
	}
}

func (w watchStream) created(r *pb.WatchCreateRequest) *pb.WatchResponse {
	w.t.Helper()
	w.create(r)
	response := w.next()
	require.True(w.t, response.Created)
	require.False(w.t, response.Canceled, "%v", response)
	return response
}

// goesOn checks that a watch of a key still gets what is written.
func (w watchStream) goesOn(s *system, key string, id int64) {
	w.t.Helper()
	revision := put(w.t, s, key, "v")
	r := w.next()
	require.Equal(w.t, id, r.WatchId, "%v", r)
	require.Len(w.t, r.Events, 1)
	require.Equal(w.t, revision, r.Events[0].Kv.ModRevision)
}

func watchStrangeRevisions(t *testing.T, s *system) {
	w, k := openWatch(t, s), key(t, "k")
	w.created(&pb.WatchCreateRequest{Key: []byte(k)})
	for _, revision := range []int64{-1, math.MinInt64} {
		w.create(&pb.WatchCreateRequest{Key: []byte(k), StartRevision: revision})
		r := w.next()
		require.True(t, r.Created && r.Canceled, "%v", r)
		require.EqualValues(t, -1, r.WatchId)
		require.Equal(t, rpctypes.ErrCompacted.Error(), r.CancelReason)
		require.Zero(t, r.CompactRevision)
	}
	w.goesOn(s, k, 0)
	w.created(&pb.WatchCreateRequest{Key: []byte(k), StartRevision: math.MaxInt64})
	w.created(&pb.WatchCreateRequest{Key: []byte(k), StartRevision: math.MaxInt64 - 1})
	w.goesOn(s, k, 0)
}

func watchStrangeIDs(t *testing.T, s *system) {
	w, k := openWatch(t, s), key(t, "k")
	for _, id := range []int64{math.MaxInt64, -7, math.MinInt64} {
		require.Equal(t, id, w.created(&pb.WatchCreateRequest{Key: []byte(key(t, "other")), WatchId: id}).WatchId)
		w.cancel(id)
		r := w.next()
		require.True(t, r.Canceled)
		require.Equal(t, id, r.WatchId)
		require.Equal(t, id, w.created(&pb.WatchCreateRequest{Key: []byte(key(t, "other")), WatchId: id}).WatchId, "it can be used again")
	}
	require.Zero(t, w.created(&pb.WatchCreateRequest{Key: []byte(k)}).WatchId)
	w.goesOn(s, k, 0)
}

func watchStrangeRanges(t *testing.T, s *system) {
	w, k := openWatch(t, s), key(t, "k")
	w.created(&pb.WatchCreateRequest{Key: []byte(k), WatchId: 5})
	for _, r := range []*pb.WatchCreateRequest{
		{Key: []byte(k), RangeEnd: []byte(k)},
		{Key: []byte(k + "b"), RangeEnd: []byte(k + "a")},
		{RangeEnd: []byte{0, 0}, Key: []byte("a")},
	} {
		w.create(r)
		response := w.next()
		require.True(t, response.Created && response.Canceled, "%v: %v", r, response)
		require.EqualValues(t, -1, response.WatchId)
	}
	w.created(&pb.WatchCreateRequest{WatchId: 6})                                               // no key: the smallest
	w.created(&pb.WatchCreateRequest{Key: []byte(k), RangeEnd: []byte(k + "\x00"), WatchId: 7}) // one key, in other words
	revision := put(t, s, k, "v")
	got := map[int64]bool{}
	for range 2 {
		r := w.next()
		require.Len(t, r.Events, 1)
		require.Equal(t, revision, r.Events[0].Kv.ModRevision)
		got[r.WatchId] = true
	}
	require.Equal(t, map[int64]bool{5: true, 7: true}, got)
}

// Answers come in the order of requests, whatever becomes of each.
func watchAnswersInOrder(t *testing.T, s *system) {
	w, k := openWatch(t, s), []byte(key(t, "k"))
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 10})
	w.cancel(10)
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 11})
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 11})
	w.create(&pb.WatchCreateRequest{Key: k, WatchId: 10})
	w.cancel(11)
	for i, want := range []struct {
		id                int64
		created, canceled bool
	}{{10, true, false}, {10, false, true}, {11, true, false}, {-1, true, true}, {10, true, false}, {11, false, true}} {
		r := w.next()
		require.Equal(t, want.id, r.WatchId, "answer %d: %v", i, r)
		require.Equal(t, want.created, r.Created, "answer %d: %v", i, r)
		require.Equal(t, want.canceled, r.Canceled, "answer %d: %v", i, r)
	}
	w.goesOn(s, string(k), 10)
}

func watchCompactedKeepsItsID(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	last := put(t, s, k, "2")
	_, err := s.client.Compact(bounded(t), last)
	require.NoError(t, err)
	w := openWatch(t, s)
	w.created(&pb.WatchCreateRequest{Key: []byte(k), StartRevision: first, WatchId: 4})
	r := w.next()
	require.True(t, r.Canceled && !r.Created)
	require.EqualValues(t, 4, r.WatchId)
	require.Equal(t, last, r.CompactRevision)
	require.Empty(t, r.CancelReason)
	w.create(&pb.WatchCreateRequest{Key: []byte(k), WatchId: 4})
	r = w.next()
	require.True(t, r.Canceled, "%v", r)
}
