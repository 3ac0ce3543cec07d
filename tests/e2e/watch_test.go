package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func watchCases() []testCase {
	return []testCase{
		{name: "watch from now", run: watchFromNow},
		{name: "watch from the past", run: watchFromThePast},
		{name: "watch with previous values", run: watchPrevious},
		{name: "watch with filters", run: watchFilters},
		{name: "watch from the future", run: watchFromTheFuture},
		{name: "watch from a compacted revision", run: watchCompacted},
		{name: "watch is told of progress", run: watchProgress, patient: true},
		{name: "watch asks for progress", run: watchAsksForProgress},
		{name: "watch is cancelled by its client", run: watchCancelled},
		{name: "watch keeps a revision whole", run: watchAtomic},
		{name: "watch of ranges", run: watchRanges},
		{name: "many watches on one stream", run: manyWatches},
	}
}

// event is an event in short: PUT k=v@revision.
func event(e *mvccpb.Event) string {
	return fmt.Sprintf("%s %s=%s@%d", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
}

// collect reads events until there are count.
func collect(t *testing.T, watch clientv3.WatchChan, count int) []*clientv3.Event {
	t.Helper()
	ctx := bounded(t)
	var events []*clientv3.Event
	for len(events) < count {
		select {
		case r, ok := <-watch:
			require.True(t, ok, "the watch ended after %d of %d events", len(events), count)
			require.NoError(t, r.Err())
			for _, e := range r.Events {
				require.LessOrEqual(t, e.Kv.ModRevision, r.Header.Revision)
			}
			events = append(events, r.Events...)
		case <-ctx.Done():
			require.Fail(t, "no more events", "%d of %d came", len(events), count)
		}
	}
	require.Len(t, events, count)
	return events
}

// created opens a watch and waits until it stands.
func created(t *testing.T, s *system, key string, opts ...clientv3.OpOption) (clientv3.WatchChan, *clientv3.WatchResponse) {
	t.Helper()
	ctx := bounded(t)
	watch := s.client.Watch(ctx, key, append(opts, clientv3.WithCreatedNotify())...)
	select {
	case r := <-watch:
		require.NoError(t, r.Err())
		require.True(t, r.Created)
		return watch, &r
	case <-ctx.Done():
		require.Fail(t, "the watch was not created")
	}
	return nil, nil
}

func watchFromNow(t *testing.T, s *system) {
	k := key(t, "k")
	before := put(t, s, k, "old")
	watch, r := created(t, s, k)
	require.Equal(t, before, r.Header.Revision)
	put(t, s, k, "1")
	put(t, s, key(t, "other"), "x")
	_, err := s.client.Delete(bounded(t), k)
	require.NoError(t, err)
	events := collect(t, watch, 2)
	require.Equal(t, fmt.Sprintf("PUT %s=1@%d", k, before+1), event(events[0]))
	require.Equal(t, fmt.Sprintf("DELETE %s=@%d", k, before+3), event(events[1]))
	require.EqualValues(t, 2, events[0].Kv.Version)
	require.Equal(t, before, events[0].Kv.CreateRevision)
	require.Nil(t, events[0].PrevKv)
	require.True(t, events[0].IsModify())
}

func watchFromThePast(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "0")
	const writes = 50
	for i := 1; i < writes; i++ {
		put(t, s, k, fmt.Sprint(i))
	}
	var watches []clientv3.WatchChan
	for _, from := range []int64{first, first + writes/2} {
		watch := s.client.Watch(bounded(t), k, clientv3.WithRev(from))
		for i, e := range collect(t, watch, writes-int(from-first)) {
			require.Equal(t, from+int64(i), e.Kv.ModRevision)
		}
		watches = append(watches, watch)
	}
	now := put(t, s, k, "now")
	for _, watch := range watches {
		require.Equal(t, now, collect(t, watch, 1)[0].Kv.ModRevision, "it goes on into the present")
	}
}

func watchPrevious(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	watch := s.client.Watch(bounded(t), k, clientv3.WithPrevKV(), clientv3.WithRev(first))
	put(t, s, k, "2")
	_, err := s.client.Delete(bounded(t), k)
	require.NoError(t, err)
	put(t, s, k, "3")
	events := collect(t, watch, 4)
	require.Nil(t, events[0].PrevKv)
	require.Equal(t, "1", string(events[1].PrevKv.Value))
	require.Equal(t, first, events[1].PrevKv.ModRevision)
	require.Equal(t, "2", string(events[2].PrevKv.Value))
	require.EqualValues(t, 2, events[2].PrevKv.Version)
	require.Nil(t, events[3].PrevKv)
}

func watchFilters(t *testing.T, s *system) {
	k := key(t, "k")
	puts, _ := created(t, s, k, clientv3.WithFilterDelete())
	deletes, _ := created(t, s, k, clientv3.WithFilterPut())
	put(t, s, k, "1")
	_, err := s.client.Delete(bounded(t), k)
	require.NoError(t, err)
	put(t, s, k, "2")
	_, err = s.client.Delete(bounded(t), k)
	require.NoError(t, err)
	for _, e := range collect(t, puts, 2) {
		require.Equal(t, clientv3.EventTypePut, e.Type)
	}
	for _, e := range collect(t, deletes, 2) {
		require.Equal(t, clientv3.EventTypeDelete, e.Type)
	}
}

func watchFromTheFuture(t *testing.T, s *system) {
	k := key(t, "k")
	now := put(t, s, k, "0")
	watch, r := created(t, s, k, clientv3.WithRev(now+3))
	require.Equal(t, now, r.Header.Revision)
	for i := range 4 {
		put(t, s, k, fmt.Sprint(i+1))
	}
	events := collect(t, watch, 2)
	require.Equal(t, now+3, events[0].Kv.ModRevision)
	require.Equal(t, now+4, events[1].Kv.ModRevision)
}

func watchCompacted(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	last := put(t, s, k, "2")
	_, err := s.client.Compact(bounded(t), last)
	require.NoError(t, err)
	watch := s.client.Watch(bounded(t), k, clientv3.WithRev(first))
	r := <-watch
	require.ErrorIs(t, r.Err(), rpctypes.ErrCompacted)
	require.True(t, r.Canceled)
	require.Equal(t, last, r.CompactRevision)
	_, more := <-watch
	require.False(t, more)
	// The compact revision itself can be watched.
	require.Equal(t, last, collect(t, s.client.Watch(bounded(t), k, clientv3.WithRev(last)), 1)[0].Kv.ModRevision)
}

// An idle watch that asked for it is told the head from time to time.
func watchProgress(t *testing.T, s *system) {
	now := put(t, s, key(t, "other"), "x")
	watch := s.client.Watch(bounded(t), key(t, "k"), clientv3.WithProgressNotify())
	r, ok := <-watch
	require.True(t, ok)
	require.NoError(t, r.Err())
	require.True(t, r.IsProgressNotify())
	require.GreaterOrEqual(t, r.Header.Revision, now)
}

// A progress request is answered with a revision below which nothing follows.
func watchAsksForProgress(t *testing.T, s *system) {
	ctx, cancel := context.WithCancel(bounded(t))
	defer cancel()
	k := key(t, "k")
	watch, _ := createdIn(ctx, t, s, k)
	now := put(t, s, k, "1")
	now = max(now, put(t, s, key(t, "other"), "1"))
	seen, progress := int64(0), int64(0)
	for progress < now {
		// The answer may not come while the watch is behind: ask again.
		require.NoError(t, s.client.RequestProgress(ctx))
		r, ok := <-watch
		require.True(t, ok)
		require.NoError(t, r.Err())
		if r.IsProgressNotify() {
			require.GreaterOrEqual(t, r.Header.Revision, progress)
			progress = r.Header.Revision
		}
		for _, e := range r.Events {
			require.Greater(t, e.Kv.ModRevision, progress)
			seen = e.Kv.ModRevision
		}
	}
	require.Equal(t, now-1, seen)
}

// createdIn is created with a context of the caller's, which decides what stream of the client it is on.
func createdIn(ctx context.Context, t *testing.T, s *system, key string) (clientv3.WatchChan, int64) {
	t.Helper()
	watch := s.client.Watch(ctx, key, clientv3.WithCreatedNotify())
	r, ok := <-watch
	require.True(t, ok)
	require.True(t, r.Created)
	return watch, r.Header.Revision
}

func watchCancelled(t *testing.T, s *system) {
	k := key(t, "k")
	ctx, cancel := context.WithCancel(bounded(t))
	gone, _ := createdIn(ctx, t, s, k)
	stays, _ := created(t, s, k)
	cancel()
	for r := range gone {
		require.Empty(t, r.Events)
	}
	put(t, s, k, "1")
	collect(t, stays, 1)
}

// What one transaction changed comes in one response.
func watchAtomic(t *testing.T, s *system) {
	prefix := key(t, "")
	watch, _ := created(t, s, prefix, clientv3.WithPrefix())
	const size = 20
	for range 5 {
		var ops []clientv3.Op
		for i := range size {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("%s%d", prefix, i), "v"))
		}
		_, err := s.client.Txn(bounded(t)).Then(ops...).Commit()
		require.NoError(t, err)
	}
	seen := map[int64]int{}
	for total := 0; total < 5*size; {
		r, ok := <-watch
		require.True(t, ok, "the watch ended after %d of %d events", total, 5*size)
		require.NoError(t, r.Err())
		here := map[int64]int{}
		for _, e := range r.Events {
			here[e.Kv.ModRevision]++
		}
		for revision, count := range here {
			require.Zero(t, seen[revision], "revision %d came in two responses", revision)
			require.Equal(t, size, count)
			seen[revision] = count
			total += count
		}
	}
}

func watchRanges(t *testing.T, s *system) {
	prefix := key(t, "")
	ranged, _ := created(t, s, prefix+"b", clientv3.WithRange(prefix+"d"))
	from, _ := created(t, s, prefix+"c", clientv3.WithFromKey())
	for _, k := range []string{"a", "b", "bb", "c", "d"} {
		put(t, s, prefix+k, k)
	}
	short := func(events []*clientv3.Event) (out []string) {
		for _, e := range events {
			out = append(out, string(e.Kv.Value))
		}
		return out
	}
	require.Equal(t, []string{"b", "bb", "c"}, short(collect(t, ranged, 3)))
	require.Equal(t, []string{"c", "d"}, short(collect(t, from, 2)))
}

// clientv3 puts all these watches on one stream.
func manyWatches(t *testing.T, s *system) {
	const watches, writes = 100, 3
	prefix := key(t, "")
	channels := make([]clientv3.WatchChan, watches)
	for i := range channels {
		channels[i] = s.client.Watch(bounded(t), fmt.Sprintf("%s%03d", prefix, i), clientv3.WithCreatedNotify())
	}
	for _, watch := range channels {
		r := <-watch
		require.True(t, r.Created)
	}
	for n := range writes {
		for i := range channels {
			put(t, s, fmt.Sprintf("%s%03d", prefix, i), fmt.Sprint(n))
		}
	}
	for i, watch := range channels {
		for n, e := range collect(t, watch, writes) {
			require.Equal(t, fmt.Sprintf("%s%03d", prefix, i), string(e.Kv.Key))
			require.Equal(t, fmt.Sprint(n), string(e.Kv.Value))
		}
	}
}
