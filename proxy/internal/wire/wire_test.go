package wire_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
	"github.com/holdfastdb/holdfast/services/buffers"
)

func marshal(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return b
}

func TestPeek(t *testing.T) {
	full := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("z"), Limit: 3, Revision: 9, MaxCreateRevision: 4}
	require.False(t, wire.RangeSerializable(marshal(t, full)))
	full.Serializable = true
	b := marshal(t, full)
	require.True(t, wire.RangeSerializable(b))
	require.False(t, wire.RangeSerializable(append(b, 0x38, 0)), "the last value wins")
	require.False(t, wire.RangeSerializable(append(b, 0xff)), "malformed bytes are the node's to refuse")
	require.False(t, wire.RangeSerializable(nil))
	require.True(t, wire.MemberListLinearizable(marshal(t, &pb.MemberListRequest{Linearizable: true})))
	require.True(t, wire.CompactPhysical(marshal(t, &pb.CompactionRequest{Revision: 3, Physical: true})))
	require.False(t, wire.CompactPhysical(marshal(t, &pb.CompactionRequest{Revision: 3})))
}

func revisions() []*feedv1.Revision {
	put := &mvccpb.KeyValue{Key: []byte("a"), Value: []byte("v"), ModRevision: 5, CreateRevision: 2, Version: 2}
	b := func(m proto.Message) []byte { out, _ := proto.Marshal(m); return out }
	return []*feedv1.Revision{
		{Revision: 5, SpanContext: []byte("span5"), Events: []*feedv1.Event{
			{Key: []byte("a"), Kv: b(put), PreviousKv: b(&mvccpb.KeyValue{Key: []byte("a"), ModRevision: 2})},
			{Key: []byte("b"), Deleted: true, Kv: b(&mvccpb.KeyValue{Key: []byte("b"), ModRevision: 5})},
		}},
		{Revision: 6},
		{Revision: 7, Events: []*feedv1.Event{{Key: []byte("c"), Kv: b(&mvccpb.KeyValue{Key: []byte("c"), ModRevision: 7})}}},
	}
}

// What is composed by hand decodes to what etcd's own types say.
func TestEventsDecode(t *testing.T) {
	head := wire.WatchHead{
		Header:  wire.Header{ClusterID: 1 << 63, MemberID: 2, Revision: 7, Term: 3},
		WatchID: -1, Created: true, Canceled: true, CompactRevision: 4, CancelReason: "why", Fragment: true,
	}
	for _, previous := range []bool{false, true} {
		events := wire.EncodeEvents(revisions(), previous)
		require.Equal(t, 2, events.Len(), "a revision without events is left out")
		require.Equal(t, []int{0, 2, 3, 1}, []int{events.Count(1, 1), events.Count(0, 1), events.Count(0, 2), events.Count(1, 2)})
		var got pb.WatchResponse
		require.NoError(t, proto.Unmarshal(append(head.Append(nil), events.Bytes(0, 2)...), &got))
		require.Equal(t, &pb.ResponseHeader{ClusterId: 1 << 63, MemberId: 2, Revision: 7, RaftTerm: 3}, got.Header)
		require.EqualValues(t, -1, got.WatchId)
		require.True(t, got.Created && got.Canceled && got.Fragment)
		require.EqualValues(t, 4, got.CompactRevision)
		require.Equal(t, "why", got.CancelReason)
		require.Len(t, got.Events, 3)
		require.Equal(t, mvccpb.Event_PUT, got.Events[0].Type)
		require.Equal(t, "v", string(got.Events[0].Kv.Value))
		require.Equal(t, previous, got.Events[0].PrevKv != nil)
		require.Equal(t, mvccpb.Event_DELETE, got.Events[1].Type)
		require.Nil(t, got.Events[1].PrevKv)
		require.EqualValues(t, 7, got.Events[2].Kv.ModRevision)
	}
	empty := wire.WatchHead{}
	require.LessOrEqual(t, len(empty.Append(nil)), wire.HeadBytesMax)
}

func TestEventsCut(t *testing.T) {
	events := wire.EncodeEvents(revisions(), true)
	require.Equal(t, 0, events.After(4))
	require.Equal(t, 1, events.After(5))
	require.Equal(t, 1, events.After(6))
	require.Equal(t, 2, events.After(7))
	require.Equal(t, events.Bytes(0, 2), append(append([]byte{}, events.Bytes(0, 1)...), events.Bytes(1, 2)...))
	require.Equal(t, len(events.Bytes(1, 2)), events.Size(1, 2))
	require.Len(t, events.Split(0, 1), 2, "an event alone may exceed the bound")
	require.Len(t, events.Split(0, 1<<20), 1)
	require.Equal(t, events.Bytes(0, 1), append(append([]byte{}, events.Split(0, 1)[0]...), events.Split(0, 1)[1]...))
	var spans []string
	events.Spans(0, 2, func(b []byte) { spans = append(spans, string(b)) })
	events.Spans(1, 2, func(b []byte) { spans = append(spans, string(b)) })
	require.Equal(t, []string{"span5"}, spans)
}

func TestKeepAliveResponse(t *testing.T) {
	want := &pb.LeaseKeepAliveResponse{
		Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 2, Revision: 3, RaftTerm: 4}, ID: -5, TTL: 6,
	}
	got := wire.KeepAliveResponse(wire.Header{ClusterID: 1, MemberID: 2, Revision: 3, Term: 4}, -5, 6)
	require.Equal(t, marshal(t, want), got)
}

type counter float64

func (c *counter) Add(bytes float64) { *c += counter(bytes) }

func TestCodec(t *testing.T) {
	var sent, received counter
	codec := wire.NewCodec(encoding.GetCodecV2("proto"), &sent, &received)
	out, err := codec.Marshal(&wire.Frame{Data: []byte("ab"), Shared: [][]byte{nil, []byte("c")}})
	require.NoError(t, err)
	var frame wire.Frame
	require.NoError(t, codec.Unmarshal(out, &frame))
	require.Equal(t, "abc", string(frame.Data))
	require.Equal(t, []counter{3, 3}, []counter{sent, received})
	out, err = codec.Marshal(&pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
	var put pb.PutRequest
	require.NoError(t, codec.Unmarshal(out, &put))
	require.Equal(t, "k", string(put.Key))
	require.Equal(t, []counter{6, 6}, []counter{sent, received})
	require.Error(t, codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, &put))
	require.Equal(t, "proto", codec.Name())
}

// The memory of a long answer is lent again once all of it is sent, and not before.
func TestLongFrameGoesBackWhenItIsSent(t *testing.T) {
	pool, codec := &buffers.Pool{}, wire.NewCodec(encoding.GetCodecV2("proto"), new(counter), new(counter))
	lent := 0
	for range 100 { // the race detector has a sync.Pool drop some of what it gets
		data := pool.Take(1 << 20)[:1<<20]
		for i := range data {
			data[i] = byte(i)
		}
		sent, err := codec.Marshal(&wire.Frame{Data: data, Buffers: pool, Shared: [][]byte{{1}}})
		require.NoError(t, err)
		require.Equal(t, append(bytes.Clone(data), 1), sent.Materialize())
		sent.Ref()
		sent.Free()
		require.NotSame(t, &data[0], first(pool.Take(1<<20)), "somebody still reads it")
		sent.Free()
		if first(pool.Take(1<<20)) == &data[0] {
			lent++
		}
	}
	require.NotZero(t, lent)
}

func first(b []byte) *byte { return &b[:1][0] }
