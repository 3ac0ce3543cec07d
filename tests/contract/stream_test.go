package contract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

func streamSuites() map[string]suite {
	return map[string]suite{
		"snapshot": snapshotSuite, "range": rangeStreamSuite, "compacted": overtakenSuite, "stream errors": streamErrorsSuite,
	}
}

// opened is a stream of one call.
type opened struct {
	t      *testing.T
	stream grpc.ServerStreamingClient[consensusv1.StreamPart]
	cancel context.CancelFunc
}

func open(t *testing.T, conn grpc.ClientConnInterface, call *consensusv1.Call) *opened {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	t.Cleanup(cancel)
	stream, err := consensusv1.NewConsensusClient(conn).Stream(ctx, &consensusv1.StreamCall{Call: call})
	require.NoError(t, err)
	return &opened{t: t, stream: stream, cancel: cancel}
}

// next is the next message; nil at the end.
func next[T any, M interface {
	*T
	proto.Message
}](o *opened) (M, error) {
	o.t.Helper()
	part, err := o.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m := M(new(T))
	require.NoError(o.t, proto.Unmarshal(part.GetResponse(), m))
	return m, nil
}

// How many values of fill are more than the buffers between the two sides: those of messages of 32 KiB, and of pages.
const (
	chunksMany = 128
	pagesMany  = 320
)

// fill writes values and gives the last revision.
func fill(c *caller, prefix string, count int) int64 {
	c.t.Helper()
	const valueBytes = 64 << 10
	value, last := string(bytes.Repeat([]byte{'v'}, valueBytes)), int64(0)
	for i := range count {
		last = c.put(fmt.Sprintf("%s%03d", prefix, i), value)
	}
	return last
}

func prefixed(prefix string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(prefix), RangeEnd: append([]byte(prefix[:len(prefix)-1]), prefix[len(prefix)-1]+1)}
}

// A snapshot comes in etcd's chunks, with its hash. Whoever does not read it holds up nobody, and who goes
// away ends it.
func snapshotSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	fill(c, key(t, "k"), chunksMany)
	o := open(t, conn, call(t, consensusv1.Method_METHOD_SNAPSHOT, &pb.SnapshotRequest{}))
	first, err := next[pb.SnapshotResponse](o)
	require.NoError(t, err)
	require.Len(t, first.GetBlob(), 32<<10)
	require.Equal(t, "3.7.0", first.GetVersion())
	total := first.GetRemainingBytes() + 32<<10

	c.put(key(t, "late"), "x") // its answer comes while nobody reads the snapshot
	db := first.GetBlob()
	for {
		m, err := next[pb.SnapshotResponse](o)
		require.NoError(t, err)
		require.NotNil(t, m, "the hash comes last")
		require.Equal(t, "3.7.0", m.GetVersion())
		if uint64(len(db)) == total {
			sum := sha256.Sum256(db)
			require.Equal(t, sum[:], m.GetBlob())
			require.Zero(t, m.GetRemainingBytes())
			break
		}
		require.Len(t, m.GetBlob(), int(min(32<<10, total-uint64(len(db)))))
		db = append(db, m.GetBlob()...)
		require.Equal(t, total-uint64(len(db)), m.GetRemainingBytes())
	}
	m, err := next[pb.SnapshotResponse](o)
	require.NoError(t, err)
	require.Nil(t, m)

	left := open(t, conn, call(t, consensusv1.Method_METHOD_SNAPSHOT, &pb.SnapshotRequest{}))
	_, err = next[pb.SnapshotResponse](left)
	require.NoError(t, err)
	left.cancel()
	for err == nil {
		_, err = next[pb.SnapshotResponse](left)
	}
	require.Equal(t, codes.Canceled, status.Code(err))
	c.close()
}

// The pages of a range are of one revision, and merged they are the answer of Range.
func rangeStreamSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	prefix := key(t, "k")
	last := fill(c, prefix, pagesMany)
	request := prefixed(prefix)
	o := open(t, conn, call(t, consensusv1.Method_METHOD_RANGE_STREAM, request))
	merged, err := next[pb.RangeStreamResponse](o)
	require.NoError(t, err)
	require.Len(t, merged.GetRangeResponse().GetKvs(), 10)
	require.Nil(t, merged.GetRangeResponse().GetHeader())
	c.remove(prefix + "319")
	c.put(prefix+"318", "changed")
	for {
		m, err := next[pb.RangeStreamResponse](o)
		require.NoError(t, err)
		if m == nil {
			break
		}
		require.Zero(t, merged.GetRangeResponse().GetCount(), "it comes last")
		require.Nil(t, merged.GetRangeResponse().GetHeader(), "it comes last")
		proto.Merge(merged, m)
	}
	request.Revision = last
	want := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, request))[0])
	require.Equal(t, last, merged.GetRangeResponse().GetHeader().GetRevision())
	want.Header.Revision = last
	require.True(t, proto.Equal(want, merged.GetRangeResponse()))
	c.close()
}

// A compaction that overtakes a stream ends it.
func overtakenSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	prefix := key(t, "k")
	fill(c, prefix, pagesMany)
	o := open(t, conn, call(t, consensusv1.Method_METHOD_RANGE_STREAM, prefixed(prefix)))
	_, err := next[pb.RangeStreamResponse](o)
	require.NoError(t, err)
	revision := c.put(prefix+"000", "newer")
	read[pb.CompactionResponse](t, c.do(call(t, consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: revision}))[0])
	for m := (&pb.RangeStreamResponse{}); err == nil && m != nil; {
		m, err = next[pb.RangeStreamResponse](o)
	}
	require.Equal(t, codes.OutOfRange, status.Code(err))
	require.Equal(t, "etcdserver: mvcc: required revision has been compacted", status.Convert(err).Message())
	c.close()
}

func streamErrorsSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	for _, tc := range []struct {
		call *consensusv1.Call
		code codes.Code
		text string
	}{
		{
			call(t, consensusv1.Method_METHOD_RANGE_STREAM, &pb.RangeRequest{}),
			codes.InvalidArgument, "etcdserver: key is not provided",
		},
		{
			call(t, consensusv1.Method_METHOD_RANGE_STREAM, &pb.RangeRequest{Key: []byte("k"), Revision: 1 << 40}),
			codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision",
		},
		{
			call(t, consensusv1.Method_METHOD_RANGE_STREAM, &pb.RangeRequest{Key: []byte("k"), SortOrder: pb.RangeRequest_DESCEND}),
			codes.Unimplemented, "RangeStream does not support custom sort orders",
		},
		{
			call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}),
			codes.Unimplemented, "METHOD_PUT is no call with a streamed answer",
		},
		{&consensusv1.Call{Method: consensusv1.Method_METHOD_SNAPSHOT, MinRevision: 1 << 40, TimeoutMs: 1}, codes.Unavailable, "etcdserver: request timed out"},
	} {
		_, err := next[pb.RangeStreamResponse](open(t, conn, tc.call))
		require.Equal(t, tc.code, status.Code(err), tc.text)
		require.Equal(t, tc.text, status.Convert(err).Message())
	}
	stream, err := consensusv1.NewConsensusClient(conn).Stream(bounded(t), &consensusv1.StreamCall{
		ClusterId: 12345, Call: call(t, consensusv1.Method_METHOD_SNAPSHOT, &pb.SnapshotRequest{}),
	})
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
}
