package mvcc

import (
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; 0: HOLDFAST_SEED, or the time")

func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d (repeat with -seed or HOLDFAST_SEED)", s)
	return s
}

// chance makes random requests over few keys, so that they meet.
type chance struct {
	*rand.Rand
	rev, compact int64
}

func (c chance) one(of int) bool { return c.IntN(of) == 0 }

func (c chance) key() []byte {
	return []byte([]string{"a", "aa", "ab", "b", "b\x00", "c", "d", "e"}[c.IntN(8)])
}

func (c chance) end() []byte {
	return [][]byte{nil, nil, nil, c.key(), []byte("z"), {0}}[c.IntN(6)]
}

func (c chance) small() []byte { return []byte(strconv.Itoa(c.IntN(4))) }

func (c chance) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: c.key(), PrevKv: c.one(2), IgnoreValue: c.one(6), IgnoreLease: c.one(6)}
	if !r.IgnoreValue {
		r.Value = c.small()
	}
	if !r.IgnoreLease {
		r.Lease = []int64{0, 0, 1, 2, 3, 99}[c.IntN(6)]
	}
	return r
}

func (c chance) delete() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: c.key(), RangeEnd: c.end(), PrevKv: c.one(2)}
}

func (c chance) read() *pb.RangeRequest {
	revs := func() int64 { return c.Int64N(c.rev + 1) }
	r := &pb.RangeRequest{
		Key: c.key(), RangeEnd: c.end(), KeysOnly: c.one(3), CountOnly: c.one(6),
		SortTarget: pb.RangeRequest_SortTarget(c.IntN(5)), SortOrder: pb.RangeRequest_SortOrder(c.IntN(3)),
	}
	if c.one(2) {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	if c.one(2) {
		r.Limit = c.Int64N(6) - 1
	}
	if c.one(2) {
		r.Revision = max(c.compact, 0) + c.Int64N(c.rev+4-max(c.compact, 0)) - 2
	}
	if c.one(3) {
		r.MinModRevision, r.MaxCreateRevision = revs(), revs()
	}
	if c.one(3) {
		r.MaxModRevision, r.MinCreateRevision = revs(), revs()
	}
	return r
}

func (c chance) compare() *pb.Compare {
	r := &pb.Compare{
		Key: c.key(), RangeEnd: c.end(),
		Target: pb.Compare_CompareTarget(c.IntN(5)), Result: pb.Compare_CompareResult(c.IntN(4)),
	}
	n := c.Int64N(4)
	switch r.Target {
	case pb.Compare_VALUE:
		r.TargetUnion = &pb.Compare_Value{Value: c.small()}
	case pb.Compare_VERSION:
		r.TargetUnion = &pb.Compare_Version{Version: n}
	case pb.Compare_CREATE:
		r.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Int64N(c.rev + 1)}
	case pb.Compare_MOD:
		r.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.Int64N(c.rev + 1)}
	case pb.Compare_LEASE:
		r.TargetUnion = &pb.Compare_Lease{Lease: n}
	}
	return r
}

func (c chance) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for c.one(2) {
		r.Compare = append(r.Compare, c.compare())
	}
	for _, ops := range []*[]*pb.RequestOp{&r.Success, &r.Failure} {
		for !c.one(3) {
			op := &pb.RequestOp{}
			switch n := c.IntN(10); {
			case n < 3:
				op.Request = &pb.RequestOp_RequestRange{RequestRange: c.read()}
			case n < 6:
				op.Request = &pb.RequestOp_RequestPut{RequestPut: c.put()}
			case n < 8:
				op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: c.delete()}
			case depth < 3:
				op.Request = &pb.RequestOp_RequestTxn{RequestTxn: c.txn(depth + 1)}
			default:
				continue
			}
			*ops = append(*ops, op)
		}
	}
	return r
}

// TestModel holds random requests against the naive model: responses, errors,
// effects, views kept from earlier, history, and hashes that must not depend on
// how far compaction is or on whether the State was restored.
func TestModel(t *testing.T) {
	s := seed(t)
	for i := range uint64(30) {
		p := &pair{t: t, b: newBucket(1, 2, 3), s: New()}
		p.m = newModel(p.b)
		rnd := rand.New(rand.NewPCG(s, i))
		if i%2 == 0 {
			p.s.freed.max = 1 + rnd.IntN(5) // a step may remember so many and be full
		}
		for range 200 {
			p.step(chance{rnd, p.s.Revision(), p.s.CompactRevision()})
		}
		p.verify()
	}
}

// pair is a State and the model that it must be like.
type pair struct {
	t     *testing.T
	b     *bucket
	s     *State
	m     *model
	views []*View

	encoder Encoder
}

func (p *pair) step(c chance) {
	switch n := c.IntN(20); {
	case n < 5:
		p.put(c.put())
	case n < 7:
		r := c.delete()
		resp, eff, err := p.s.DeleteRange(r, p.b.env())
		p.m.begin()
		p.same(r, p.m.delete(r), nil, resp, err, eff)
	case n < 11:
		r := c.read()
		got, err := p.s.View().Range(r, p.b)
		p.encoded(r, got, err)
		p.m.begin()
		want, wantErr := p.m.rangeKeys(r)
		p.same(r, want, wantErr, got, err, Effects{})
	case n < 16:
		p.txn(c.txn(0))
	case n < 17:
		p.revoke(1 + c.Int64N(3))
	case n < 18:
		if rev := c.Int64N(c.rev + 1); p.s.Compact(rev) == nil {
			p.m.compact = rev
			p.views = nil // what they read may be dropped now
		} else {
			require.LessOrEqual(p.t, rev, p.m.compact)
		}
	case n < 19:
		before := p.hash()
		drop, _ := p.s.CompactStep(1 + c.IntN(5))
		require.True(p.t, p.b.drop(drop), "dropped what is not stored")
		require.Equal(p.t, before, p.hash(), "after dropping %v", drop)
		if len(drop) > 0 {
			p.views = nil
		}
	default:
		p.restore()
	}
	if !p.s.Compacting() && c.one(10) {
		p.views = append(p.views, p.s.View())
	}
}

// exactRoom is Room for what is asked and no more.
type exactRoom struct{}

func (exactRoom) Take(n int) []byte { return make([]byte, n)[:0:n] }

// encoded checks that an Encoder says what Range has said, in what it is given.
func (p *pair) encoded(r *pb.RangeRequest, want *pb.RangeResponse, wantErr error) {
	header := &pb.ResponseHeader{ClusterId: 1, Revision: 2}
	data, err := p.encoder.Range(p.s.View(), exactRoom{}, r, p.b, header)
	require.Equal(p.t, wantErr, err)
	if err != nil {
		return
	}
	require.Len(p.t, data, cap(data), "as long as it was said to become")
	got := &pb.RangeResponse{}
	require.NoError(p.t, proto.Unmarshal(data, got))
	want = proto.Clone(want).(*pb.RangeResponse)
	want.Header = header
	require.True(p.t, proto.Equal(want, got), "%v: %v and %v", r, want, got)
}

func (p *pair) put(r *pb.PutRequest) {
	got, eff, err := p.s.Put(r, p.b.env())
	p.m.begin()
	var want *pb.PutResponse
	wantErr := p.m.checkPut(r)
	if wantErr == nil {
		want = p.m.put(r)
	}
	p.same(r, want, wantErr, got, err, eff)
}

func (p *pair) txn(r *pb.TxnRequest) {
	if CheckTxn(r, 128) != nil || endless(r) {
		return
	}
	p.m.begin()
	want, wantErr := p.m.txn(r, true)
	if wantErr == nil {
		want, wantErr = p.m.txn(r, false)
		want.Header.Revision = p.m.now()
	}
	if IsTxnReadOnly(r) {
		got, _, err := p.s.View().Txn(r, p.b)
		p.equal(r, want, wantErr, got, err)
	}
	got, eff, err := p.s.Txn(r, p.b.env())
	p.same(r, want, wantErr, got, err, eff)
}

// endless says whether a transaction deletes up to the end of the key space and
// takes over a value or lease; the transcripts cover what becomes of it.
func endless(r *pb.TxnRequest) bool {
	s := prototext.Format(r)
	return strings.Contains(s, "request_delete_range") && strings.Contains(s, "ignore_")
}

func (p *pair) revoke(id int64) {
	var keys [][]byte
	p.m.begin()
	for key := range p.b.leases[id] {
		keys = append(keys, []byte(key))
	}
	slices.SortFunc(keys, slices.Compare)
	for _, key := range keys {
		require.EqualValues(p.t, 1, p.m.delete(&pb.DeleteRangeRequest{Key: key}).Deleted)
	}
	slices.Reverse(keys)
	p.effects(p.s.DeleteKeys(keys))
	require.Empty(p.t, p.b.leases[id])
}

func (p *pair) restore() {
	before := p.hash()
	keys, compacting := p.s.View().Keys(), p.s.Compacting()
	most := p.s.freed.max
	s, err := p.b.restore(p.s.CompactRevision())
	require.NoError(p.t, err)
	require.Equal(p.t, p.s.Revision(), s.Revision())
	require.Equal(p.t, keys, s.View().Keys())
	require.False(p.t, s.Compacting() && !compacting, "the restored State wants to drop more")
	s.freed.max = most
	p.s = s
	require.Equal(p.t, before, p.hash())
}

func (p *pair) hash() KVHash {
	h, err := p.s.View().Hash(0, p.b.stored())
	require.NoError(p.t, err)
	return h
}

func (p *pair) equal(req, want proto.Message, wantErr error, got proto.Message, err error) {
	p.t.Helper()
	require.Equal(p.t, wantErr, err, prototext.Format(req))
	if err == nil {
		require.True(p.t, proto.Equal(want, got), "%s\nwant %s\ngot %s",
			prototext.Format(req), prototext.Format(want), prototext.Format(got))
	}
}

func (p *pair) same(req, want proto.Message, wantErr error, got proto.Message, err error, eff Effects) {
	p.t.Helper()
	p.equal(req, want, wantErr, got, err)
	p.effects(eff)
}

// effects stores what a request did and compares it with the model's.
func (p *pair) effects(eff Effects) {
	p.t.Helper()
	p.b.apply(eff)
	p.m.end()
	require.Equal(p.t, p.m.rev(), p.s.Revision())
	require.Len(p.t, eff.Writes, len(eff.Events))
	for i, w := range eff.Writes {
		require.Equal(p.t, Revision{p.m.rev(), int64(i)}, w.Rev)
		p.event(eff.Events[i])
		if !w.Tombstone {
			require.Same(p.t, w.KV, eff.Events[i].Kv)
		}
	}
	require.Equal(p.t, int64(len(p.m.at[p.m.rev()])), p.s.View().Keys())
}

// event checks what an event says of the state before its revision.
func (p *pair) event(e Event) {
	p.t.Helper()
	before := p.m.at[e.Kv.ModRevision-1][string(e.Kv.Key)]
	if e.Type == mvccpb.Event_PUT && e.Kv.CreateRevision == e.Kv.ModRevision {
		before = nil // made anew in this revision, whatever was there before
	}
	require.Equal(p.t, before.GetModRevision(), e.Prev.Main, showEvent(e))
	if e.PrevKv != nil {
		require.True(p.t, proto.Equal(before, e.PrevKv), showEvent(e))
	}
}

// verify checks all that is still there at the end of a run.
func (p *pair) verify() {
	for _, v := range append(p.views, p.s.View()) {
		got, err := v.Range(&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, p.b)
		require.NoError(p.t, err)
		var want []string
		for _, kv := range keysIn(p.m.at[v.Revision()], []byte{0}, []byte{0}) {
			want = append(want, showKV(kv))
		}
		var have []string
		for _, kv := range got.Kvs {
			have = append(have, showKV(kv))
		}
		require.Equal(p.t, want, have)
	}
	leased := 0
	p.s.Leased(func(key string, id int64) {
		leased++
		require.True(p.t, p.b.leases[id][key])
	})
	require.Equal(p.t, leased, len(p.b.leases[1])+len(p.b.leases[2])+len(p.b.leases[3]))

	from := max(p.m.compact+1, 1)
	next := max(from, 2)
	err := p.s.View().History(p.b, from, p.m.rev(), HistoryOptions{Prev: p.b}, func(rev int64, events []Event) bool {
		require.Equal(p.t, next, rev)
		next++
		var have []string
		for _, e := range events {
			p.event(e)
			require.Equal(p.t, e.Prev != Revision{}, e.PrevKv != nil)
			have = append(have, e.Type.String()+" "+showKV(e.Kv))
		}
		require.Equal(p.t, p.m.events[rev], have)
		return true
	})
	require.NoError(p.t, err)
	require.Equal(p.t, p.m.rev()+1, next)
}
