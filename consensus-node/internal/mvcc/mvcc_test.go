package mvcc

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func put(tb testing.TB, s *State, b *bucket, key, value string) {
	tb.Helper()
	_, eff, err := s.Put(&pb.PutRequest{Key: []byte(key), Value: []byte(value)}, b.env())
	require.NoError(tb, err)
	b.apply(eff)
}

func TestBucketKey(t *testing.T) {
	for _, c := range []struct {
		rev       Revision
		tombstone bool
		want      string
	}{
		{Revision{1, 0}, false, "\x00\x00\x00\x00\x00\x00\x00\x01_\x00\x00\x00\x00\x00\x00\x00\x00"},
		{Revision{258, 3}, true, "\x00\x00\x00\x00\x00\x00\x01\x02_\x00\x00\x00\x00\x00\x00\x00\x03t"},
	} {
		got := AppendBucketKey(nil, c.rev, c.tombstone)
		require.Equal(t, c.want, string(got))
		rev, tombstone, err := ParseBucketKey(got)
		require.NoError(t, err)
		require.Equal(t, c.rev, rev)
		require.Equal(t, c.tombstone, tombstone)
	}
	good := string(AppendBucketKey(nil, Revision{1, 1}, true))
	for _, bad := range []string{"", good[:16], good + "t", good[:17] + "x", "\xff" + good[1:], good[:8] + "-" + good[9:]} {
		_, _, err := ParseBucketKey([]byte(bad))
		require.ErrorIs(t, err, ErrBucketKey, "%q", bad)
	}
}

// TestViewsWhileWriting has readers on views of every age while the writer puts,
// deletes and compacts: the race detector and the contents must both agree.
func TestViewsWhileWriting(t *testing.T) {
	s, stored := New(), newBucket()
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
	for i := range 2000 {
		key := fmt.Sprintf("k%02d", i%37)
		if i%5 == 4 {
			_, eff, err := s.DeleteRange(&pb.DeleteRangeRequest{Key: []byte(key)}, stored.env())
			require.NoError(t, err)
			stored.apply(eff)
		} else {
			put(t, s, stored, key, "v")
		}
		if i%100 == 50 {
			require.NoError(t, s.Compact(s.Revision()-20))
		}
		s.CompactStep(3)
		if i%20 != 0 {
			continue
		}
		v, want := s.View(), s.View().Keys()
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			for range 5 {
				resp, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true}, nil)
				if err != nil || resp.Count != want || int64(len(resp.Kvs)) != want {
					t.Errorf("view of %d: %d keys, want %d, error %v", v.Revision(), resp.GetCount(), want, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestLoaderRefuses covers buckets that no history can have left behind.
func TestLoaderRefuses(t *testing.T) {
	kv := func(key string, create, mod, version int64) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(key), CreateRevision: create, ModRevision: mod, Version: version}
	}
	for _, c := range []struct {
		name      string
		rev       Revision
		tombstone bool
		kv        *mvccpb.KeyValue
	}{
		{"same revision", Revision{5, 1}, false, kv("a", 5, 5, 1)},
		{"lower sub", Revision{5, 0}, false, kv("a", 5, 5, 1)},
		{"lower main", Revision{4, 9}, false, kv("a", 4, 4, 1)},
		{"tombstone without key", Revision{6, 0}, true, kv("", 0, 0, 0)},
		{"no version", Revision{6, 0}, false, kv("a", 6, 6, 0)},
		{"another revision", Revision{6, 0}, false, kv("a", 5, 5, 1)},
		{"created later", Revision{6, 0}, false, kv("a", 7, 6, 1)},
	} {
		l := NewLoader(-1)
		require.NoError(t, l.Add(Revision{5, 1}, false, kv("a", 5, 5, 1)))
		require.ErrorIs(t, l.Add(c.rev, c.tombstone, c.kv), ErrBucketOrder, c.name)
	}
}

// TestLoaderOrders loads many keys in any order: such as have much in common, are the begin of each other, or end in zeros, as the
// bytes by which they are compared first are filled up.
func TestLoaderOrders(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	keys := []string{"/common/", "/common/a", "/common/a\x00"}
	for n := range 100 {
		keys = append(keys, "/common/"+strings.Repeat("\x00", n))
	}
	for len(keys) < 5000 {
		key := []byte("/common/")
		if rng.IntN(2) == 0 {
			key = append(key, "another long begin/"[:rng.IntN(20)]...)
		}
		for range rng.IntN(14) {
			key = append(key, byte(rng.IntN(3)))
		}
		keys = append(keys, string(key))
	}
	rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	l, versions := NewLoader(-1), map[string]int64{}
	for i, key := range keys {
		rev := int64(i + 2)
		versions[key]++
		require.NoError(t, l.Add(Revision{rev, 0}, false, &mvccpb.KeyValue{
			Key: []byte(key), CreateRevision: 2, ModRevision: rev, Version: versions[key],
		}))
	}
	s := l.State()
	got, err := s.View().Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true}, nil)
	require.NoError(t, err)
	want := slices.Sorted(maps.Keys(versions))
	require.Greater(t, len(want), 2000)
	require.Len(t, got.Kvs, len(want))
	for i, kv := range got.Kvs {
		require.Equal(t, want[i], string(kv.Key))
		require.Equal(t, versions[want[i]], kv.Version)
	}
	require.EqualValues(t, len(want), s.View().Keys())
}

// TestLoaderRaisedRevision loads what etcd's snapshot restore leaves when it is
// told to raise the revision: an empty entry at the new one, marked compacted.
func TestLoaderRaisedRevision(t *testing.T) {
	s, b := New(), newBucket()
	put(t, s, b, "a", "1")
	put(t, s, b, "a", "2")
	b.writes = append(b.writes, Write{Rev: Revision{1003, 0}, KV: &mvccpb.KeyValue{}})
	s, err := b.restore(1003)
	require.NoError(t, err)
	require.EqualValues(t, 1003, s.Revision())
	require.EqualValues(t, 1, s.View().Keys())

	hash, err := s.View().Hash(0, b.stored())
	require.NoError(t, err)
	drop, done := s.CompactStep(100)
	require.True(t, done)
	require.Equal(t, []Drop{{Revision{2, 0}, false}}, drop)
	require.True(t, b.drop(drop))
	again, err := s.View().Hash(0, b.stored())
	require.NoError(t, err)
	require.Equal(t, hash, again)

	put(t, s, b, "b", "1")
	resp, err := s.View().Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, b)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 2)
	var revs []int64
	require.NoError(t, s.View().History(b, 1003, 1004, HistoryOptions{}, func(rev int64, _ []Event) bool {
		revs = append(revs, rev)
		return true
	}))
	require.Equal(t, []int64{1004}, revs, "the empty entry is no event")
}

// TestHoles takes one stored change away at a time: History and Hash must say
// so and never go on as if it had not been.
func TestHoles(t *testing.T) {
	s, full := New(), newBucket()
	for i := range 6 {
		put(t, s, full, fmt.Sprint("k", i%3), "v")
	}
	_, eff, err := s.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("x")}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("y")}}},
	}}, full.env())
	require.NoError(t, err)
	full.apply(eff)
	put(t, s, full, "last", "v")
	require.NoError(t, s.Compact(4))
	drop, _ := s.CompactStep(100)
	require.True(t, full.drop(drop))

	v := s.View()
	all := func(int64, []Event) bool { return true }
	require.NoError(t, v.History(full, 5, v.Revision(), HistoryOptions{}, all))
	_, err = v.Hash(0, full.stored())
	require.NoError(t, err)
	for i, w := range full.writes {
		if w.Rev == (Revision{8, 1}) {
			continue // the end of a revision does not show in what is left
		}
		b := &bucket{writes: slices.Delete(slices.Clone(full.writes), i, i+1)}
		if w.Rev.Main > 4 {
			require.ErrorIs(t, v.History(b, 5, v.Revision(), HistoryOptions{}, all), ErrBucketOrder, "without %v", w.Rev)
		}
		h, err := v.Hash(0, b.stored())
		if w.Rev.Main <= 4 && !slices.Contains([]int64{2, 3, 4}, w.Rev.Main) {
			require.NoError(t, err, h)
			continue
		}
		held := w.Rev.Main > 4
		for _, r := range v.kept(v.Revision()) {
			held = held || r == w.Rev
		}
		require.Equal(t, held, errors.Is(err, ErrBucketOrder), "hash without %v: %v", w.Rev, err)
	}
}

// TestHistoryStops ends after the revision at which the reader has enough.
func TestHistoryStops(t *testing.T) {
	s, b := New(), newBucket()
	for range 5 {
		put(t, s, b, "a", "v")
	}
	var got []int64
	err := s.View().History(b, 1, 6, HistoryOptions{}, func(rev int64, _ []Event) bool {
		got = append(got, rev)
		return rev < 4
	})
	require.NoError(t, err)
	require.Equal(t, []int64{2, 3, 4}, got)
}

// TestStorageErrors says that trouble in storage comes out as it is, without a
// gRPC status, and that single requests change nothing then.
func TestStorageErrors(t *testing.T) {
	s, b := New(), newBucket()
	put(t, s, b, "a", "v")
	empty := newBucket()
	key := []byte("a")
	v := s.View()
	_, _, putErr := s.Put(&pb.PutRequest{Key: key, PrevKv: true}, empty.env())
	_, _, ignoreErr := s.Put(&pb.PutRequest{Key: key, IgnoreValue: true}, empty.env())
	_, _, delErr := s.DeleteRange(&pb.DeleteRangeRequest{Key: key, PrevKv: true}, empty.env())
	_, rangeErr := v.Range(&pb.RangeRequest{Key: key}, empty)
	_, sortErr := v.Range(&pb.RangeRequest{Key: key, SortTarget: pb.RangeRequest_VALUE}, empty)
	_, _, cmpErr := s.Txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: key, Target: pb.Compare_VALUE}}}, empty.env())
	for i, err := range []error{putErr, ignoreErr, delErr, rangeErr, sortErr, cmpErr} {
		require.ErrorIs(t, err, errNotStored, "case %d", i)
		_, isStatus := status.FromError(err)
		require.False(t, isStatus, "case %d", i)
	}
	require.Same(t, v, s.View())
}

// TestSkipReads writes the same with and without, and reads nothing it need not.
func TestSkipReads(t *testing.T) {
	s, b := New(), newBucket()
	put(t, s, b, "a", "v")
	b.reads = 0
	env := b.env()
	env.SkipReads = true
	key := []byte("a")
	resp, eff, err := s.Txn(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, IgnoreLease: true, PrevKv: true}}},
	}}, env)
	require.NoError(t, err)
	require.EqualValues(t, 3, resp.Header.Revision)
	require.EqualValues(t, 2, eff.Writes[0].KV.Version)
	b.apply(eff)
	_, eff, err = s.DeleteRange(&pb.DeleteRangeRequest{Key: key, PrevKv: true}, env)
	require.NoError(t, err)
	require.True(t, eff.Writes[0].Tombstone)
	require.Zero(t, b.reads)
}

func TestCheckRangeStream(t *testing.T) {
	key := []byte("a")
	for _, c := range []struct {
		req  *pb.RangeRequest
		code codes.Code
	}{
		{&pb.RangeRequest{Key: key, Limit: 3, KeysOnly: true}, codes.OK},
		{&pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_ASCEND}, codes.OK},
		{&pb.RangeRequest{Key: key, SortTarget: pb.RangeRequest_MOD}, codes.Unimplemented},
		{&pb.RangeRequest{}, codes.InvalidArgument},
		{&pb.RangeRequest{Key: key, SortOrder: 3}, codes.InvalidArgument},
		{&pb.RangeRequest{Key: key, SortOrder: pb.RangeRequest_DESCEND}, codes.Unimplemented},
		{&pb.RangeRequest{Key: key, MaxCreateRevision: 1}, codes.Unimplemented},
	} {
		require.Equal(t, c.code, status.Code(CheckRangeStream(c.req)), c.req)
	}
}

// TestIntervals holds the merged list against every interval on its own.
func TestIntervals(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seed(t), 0))
	point := func() string { return string([]byte{byte('a' + rnd.IntN(12))}) }
	for range 500 {
		var merged intervals
		var all []interval
		for range 1 + rnd.IntN(8) {
			iv := interval{point(), point()}
			merged.add(iv)
			all = append(all, iv)
		}
		for k := byte('a'); k <= 'n'; k++ {
			key := string(k)
			in := slices.ContainsFunc(all, func(iv interval) bool { return iv.begin <= key && key < iv.end })
			require.Equal(t, in, merged.contain(key), "%q in %v as %v", key, all, merged)
		}
		for i := 1; i < len(merged); i++ {
			require.Less(t, merged[i-1].end, merged[i].begin)
		}
	}
}

// TestNilOperations: a request from within the process may lack what the wire
// cannot; it is refused and does not panic.
func TestNilOperations(t *testing.T) {
	for _, op := range []*pb.RequestOp{
		nil,
		{},
		{Request: &pb.RequestOp_RequestRange{}},
		{Request: &pb.RequestOp_RequestPut{}},
		{Request: &pb.RequestOp_RequestDeleteRange{}},
	} {
		require.Error(t, CheckTxn(&pb.TxnRequest{Success: []*pb.RequestOp{op}}, 10), op)
	}
	require.NoError(t, CheckTxn(nil, 10))
	require.Error(t, CheckRange(nil))
	s := New()
	req := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{}}}}
	require.NoError(t, CheckTxn(req, 10))
	_, _, err := s.Txn(req, Env{})
	require.NoError(t, err)
}

// TestTheIndexAloneAnswers counts what is read from the store: nothing for keys and counts, whatever else is asked, but for an
// order by value.
func TestTheIndexAloneAnswers(t *testing.T) {
	s, b := New(), newBucket()
	for i := range 50 {
		put(t, s, b, fmt.Sprintf("k%02d", i%40), "v")
	}
	all := func(r *pb.RangeRequest) *pb.RangeRequest {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
		return r
	}
	for _, read := range []func(*pb.RangeRequest) (*pb.RangeResponse, error){
		func(r *pb.RangeRequest) (*pb.RangeResponse, error) { return s.View().Range(r, b) },
		func(r *pb.RangeRequest) (*pb.RangeResponse, error) { return s.View().RangePage(r, b) },
	} {
		for _, r := range []*pb.RangeRequest{
			{CountOnly: true},
			{CountOnly: true, Revision: 30},
			{CountOnly: true, MinModRevision: 20},
			{KeysOnly: true},
			{KeysOnly: true, Revision: 30},
			{KeysOnly: true, Limit: 3},
			{KeysOnly: true, MaxCreateRevision: 20},
			{KeysOnly: true, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_DESCEND},
			{KeysOnly: true, SortTarget: pb.RangeRequest_VERSION, SortOrder: pb.RangeRequest_ASCEND},
		} {
			b.reads = 0
			got, err := read(all(r))
			require.NoError(t, err)
			require.Positive(t, got.Count)
			require.Zero(t, b.reads, r)
		}
		b.reads = 0
		_, err := read(all(&pb.RangeRequest{Limit: 3}))
		require.NoError(t, err)
		require.Equal(t, 3, b.reads, "only what is answered is read")
	}
	b.reads = 0
	_, _, err := s.Txn(&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k00"), Target: pb.Compare_MOD, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_ModRevision{}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: all(&pb.RangeRequest{KeysOnly: true})}}},
	}, b.env())
	require.NoError(t, err)
	require.Zero(t, b.reads)
}

// slowValues reads nothing until it is let go.
type slowValues struct {
	Values
	began, goOn chan struct{}
	once        sync.Once
}

func (v *slowValues) Value(rev Revision) (*mvccpb.KeyValue, error) {
	v.once.Do(func() { close(v.began) })
	<-v.goOn
	return v.Values.Value(rev)
}

// TestALongReadHoldsUpNobody has a read stand still in its midst, while the writer puts, deletes and compacts, and other reads go on. It
// answers as of its begin.
func TestALongReadHoldsUpNobody(t *testing.T) {
	s, b := New(), newBucket()
	for i := range 1000 {
		put(t, s, b, fmt.Sprintf("k%04d", i), "before")
	}
	before := newBucket() // what a reader of the store would still hold
	before.writes = slices.Clone(b.writes)
	view, slow := s.View(), &slowValues{Values: before, began: make(chan struct{}), goOn: make(chan struct{})}
	var got *pb.RangeResponse
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err = view.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, slow)
	}()
	<-slow.began
	for i := range 1000 {
		put(t, s, b, fmt.Sprintf("k%04d", i), "after")
	}
	_, eff, deleteErr := s.DeleteRange(&pb.DeleteRangeRequest{Key: []byte("k05"), RangeEnd: []byte("k06")}, b.env())
	require.NoError(t, deleteErr)
	b.apply(eff)
	require.NoError(t, s.Compact(s.Revision()))
	for s.Compacting() {
		s.CompactStep(100)
	}
	now, rangeErr := s.View().Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, b)
	require.NoError(t, rangeErr)
	require.EqualValues(t, 900, now.Count)
	select {
	case <-done:
		t.Fatal("the slow read has ended before its time")
	default:
	}
	close(slow.goOn)
	<-done
	require.NoError(t, err)
	require.EqualValues(t, 1000, got.Count)
	for _, kv := range got.Kvs {
		require.Equal(t, "before", string(kv.Value))
	}
}
