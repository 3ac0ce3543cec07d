package e2e

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func kvCases() []testCase {
	return []testCase{
		{name: "put and get", run: putAndGet},
		{name: "range limits and counts", run: rangeLimits},
		{name: "range sorted", run: rangeSorted},
		{name: "range of the past", run: rangePast},
		{name: "range by revision", run: rangeByRevision},
		{name: "range ends", run: rangeEnds},
		{name: "ignore value and lease", run: ignore},
		{name: "delete", run: deleteKeys},
		{name: "compact", run: compact},
		{name: "writers at once", run: writersAtOnce},
	}
}

func put(t *testing.T, s *system, key, value string, opts ...clientv3.OpOption) int64 {
	t.Helper()
	r, err := s.client.Put(bounded(t), key, value, opts...)
	require.NoError(t, err)
	return r.Header.Revision
}

func get(t *testing.T, s *system, key string, opts ...clientv3.OpOption) *clientv3.GetResponse {
	t.Helper()
	r, err := s.client.Get(bounded(t), key, opts...)
	require.NoError(t, err)
	return r
}

// values are the values of a range in its order.
func values(kvs []*mvccpb.KeyValue) []string {
	out := make([]string, 0, len(kvs))
	for _, kv := range kvs {
		out = append(out, string(kv.Value))
	}
	return out
}

func putAndGet(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	r, err := s.client.Put(bounded(t), k, "2", clientv3.WithPrevKV())
	require.NoError(t, err)
	require.Equal(t, first+1, r.Header.Revision)
	require.Equal(t, "1", string(r.PrevKv.Value))
	require.NotZero(t, r.Header.ClusterId)
	require.NotZero(t, r.Header.MemberId)
	require.NotZero(t, r.Header.RaftTerm)

	got := get(t, s, k)
	require.Equal(t, first+1, got.Header.Revision)
	require.EqualValues(t, 1, got.Count)
	kv := got.Kvs[0]
	require.Equal(t, k, string(kv.Key))
	require.Equal(t, "2", string(kv.Value))
	require.Equal(t, first, kv.CreateRevision)
	require.Equal(t, first+1, kv.ModRevision)
	require.EqualValues(t, 2, kv.Version)

	require.Empty(t, get(t, s, key(t, "none")).Kvs)
	require.Equal(t, []string{"2"}, values(get(t, s, k, clientv3.WithSerializable()).Kvs))
}

func rangeLimits(t *testing.T, s *system) {
	prefix := key(t, "")
	for i := range 5 {
		put(t, s, fmt.Sprintf("%s%d", prefix, i), fmt.Sprint(i))
	}
	r := get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithLimit(3))
	require.Equal(t, []string{"0", "1", "2"}, values(r.Kvs))
	require.True(t, r.More)
	require.EqualValues(t, 5, r.Count)
	r = get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithLimit(5))
	require.False(t, r.More)
	r = get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.Empty(t, r.Kvs)
	require.EqualValues(t, 5, r.Count)
	r = get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.Len(t, r.Kvs, 5)
	require.Equal(t, []string{"", "", "", "", ""}, values(r.Kvs))
	require.Equal(t, prefix+"4", string(r.Kvs[4].Key))
}

func rangeSorted(t *testing.T, s *system) {
	prefix := key(t, "")
	put(t, s, prefix+"a", "3")
	put(t, s, prefix+"c", "1")
	put(t, s, prefix+"b", "2")
	put(t, s, prefix+"b", "2") // version 2, the newest
	for _, c := range []struct {
		target clientv3.SortTarget
		want   []string
	}{
		{clientv3.SortByKey, []string{"3", "2", "1"}},
		{clientv3.SortByValue, []string{"1", "2", "3"}},
		{clientv3.SortByCreateRevision, []string{"3", "1", "2"}},
		{clientv3.SortByModRevision, []string{"3", "1", "2"}},
	} {
		up := get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithSort(c.target, clientv3.SortAscend))
		require.Equal(t, c.want, values(up.Kvs), "target %d", c.target)
		down := get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithSort(c.target, clientv3.SortDescend), clientv3.WithLimit(2))
		require.Equal(t, []string{c.want[2], c.want[1]}, values(down.Kvs), "target %d", c.target)
		require.True(t, down.More)
	}
	byVersion := get(t, s, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend))
	require.Equal(t, "2", string(byVersion.Kvs[0].Value))
}

func rangePast(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	put(t, s, k, "2")
	_, err := s.client.Delete(bounded(t), k)
	require.NoError(t, err)
	require.Empty(t, get(t, s, k).Kvs)
	for i, want := range [][]string{{}, {"1"}, {"2"}, {}} {
		require.Equal(t, want, values(get(t, s, k, clientv3.WithRev(first-1+int64(i))).Kvs), "revision %d", i)
	}
	_, err = s.client.Get(bounded(t), k, clientv3.WithRev(first+1000))
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)
}

func rangeByRevision(t *testing.T, s *system) {
	prefix := key(t, "")
	first := put(t, s, prefix+"a", "a")
	put(t, s, prefix+"b", "b")
	put(t, s, prefix+"c", "c")
	put(t, s, prefix+"a", "A") // created at first, changed at first+3
	for _, c := range []struct {
		opt  clientv3.OpOption
		want []string
	}{
		{clientv3.WithMinModRev(first + 2), []string{"A", "c"}},
		{clientv3.WithMaxModRev(first + 2), []string{"b", "c"}},
		{clientv3.WithMinCreateRev(first + 1), []string{"b", "c"}},
		{clientv3.WithMaxCreateRev(first), []string{"A"}},
	} {
		r := get(t, s, prefix, clientv3.WithPrefix(), c.opt)
		require.Equal(t, c.want, values(r.Kvs))
		require.EqualValues(t, 3, r.Count, "the count is of the range, not of what the filters leave")
	}
}

func rangeEnds(t *testing.T, s *system) {
	prefix := key(t, "")
	for _, k := range []string{"a", "ab", "b", "c"} {
		put(t, s, prefix+k, k)
	}
	require.Equal(t, []string{"a", "ab"}, values(get(t, s, prefix+"a", clientv3.WithRange(prefix+"b")).Kvs))
	require.Equal(t, []string{"b", "c"}, values(get(t, s, prefix+"b", clientv3.WithFromKey(), clientv3.WithLimit(2)).Kvs))
	require.Empty(t, get(t, s, prefix+"b", clientv3.WithRange(prefix+"a")).Kvs, "an end before the start holds nothing")
}

func ignore(t *testing.T, s *system) {
	k := key(t, "k")
	lease, err := s.client.Grant(bounded(t), 100)
	require.NoError(t, err)
	put(t, s, k, "1", clientv3.WithLease(lease.ID))
	put(t, s, k, "2", clientv3.WithIgnoreLease())
	kv := get(t, s, k).Kvs[0]
	require.Equal(t, int64(lease.ID), kv.Lease)
	require.Equal(t, "2", string(kv.Value))
	put(t, s, k, "", clientv3.WithIgnoreValue())
	kv = get(t, s, k).Kvs[0]
	require.Zero(t, kv.Lease)
	require.Equal(t, "2", string(kv.Value))
	_, err = s.client.Put(bounded(t), key(t, "none"), "", clientv3.WithIgnoreValue())
	require.ErrorIs(t, err, rpctypes.ErrKeyNotFound)
}

func deleteKeys(t *testing.T, s *system) {
	prefix := key(t, "")
	var last int64
	for _, k := range []string{"a", "b", "c"} {
		last = put(t, s, prefix+k, k)
	}
	r, err := s.client.Delete(bounded(t), prefix+"a", clientv3.WithRange(prefix+"c"), clientv3.WithPrevKV())
	require.NoError(t, err)
	require.EqualValues(t, 2, r.Deleted)
	require.Equal(t, []string{"a", "b"}, values(r.PrevKvs))
	require.Equal(t, last+1, r.Header.Revision)
	r, err = s.client.Delete(bounded(t), prefix+"a")
	require.NoError(t, err)
	require.Zero(t, r.Deleted)
	require.Equal(t, last+1, r.Header.Revision, "what deletes nothing makes no revision")
	require.Equal(t, []string{"c"}, values(get(t, s, prefix, clientv3.WithPrefix()).Kvs))
}

func compact(t *testing.T, s *system) {
	k := key(t, "k")
	first := put(t, s, k, "1")
	put(t, s, k, "2")
	last := put(t, s, k, "3")
	_, err := s.client.Compact(bounded(t), last+1000)
	require.ErrorIs(t, err, rpctypes.ErrFutureRev)
	_, err = s.client.Compact(bounded(t), first+1)
	require.NoError(t, err)
	_, err = s.client.Get(bounded(t), k, clientv3.WithRev(first))
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	require.Equal(t, []string{"2"}, values(get(t, s, k, clientv3.WithRev(first+1)).Kvs), "the compact revision itself can be read")
	_, err = s.client.Compact(bounded(t), first)
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	_, err = s.client.Compact(bounded(t), last, clientv3.WithCompactPhysical())
	require.NoError(t, err)
	require.Equal(t, []string{"3"}, values(get(t, s, k).Kvs))
}

// Each write has a revision of its own, and none is lost.
func writersAtOnce(t *testing.T, s *system) {
	const writers, each = 8, 25
	prefix := key(t, "")
	before := get(t, s, prefix).Header.Revision
	revisions := make(chan int64, writers*each)
	var all sync.WaitGroup
	kv := pb.NewKVClient(s.Conn(t, s.Endpoints()[0]))
	for w := range writers {
		all.Go(func() {
			for i := range each {
				r, err := kv.Put(bounded(t), &pb.PutRequest{Key: fmt.Appendf(nil, "%s%d", prefix, w), Value: fmt.Append(nil, i)})
				if err != nil {
					t.Errorf("writer %d: %v", w, err)
					return
				}
				revisions <- r.Header.Revision
			}
		})
	}
	all.Wait()
	close(revisions)
	seen := map[int64]bool{}
	for r := range revisions {
		require.False(t, seen[r], "revision %d was given twice", r)
		seen[r] = true
		require.Greater(t, r, before)
		require.LessOrEqual(t, r, before+writers*each)
	}
	require.Len(t, seen, writers*each)
	for _, kv := range get(t, s, prefix, clientv3.WithPrefix()).Kvs {
		require.Equal(t, fmt.Sprint(each-1), string(kv.Value))
		require.EqualValues(t, each, kv.Version)
	}
}
