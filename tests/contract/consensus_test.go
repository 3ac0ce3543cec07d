package contract

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

func consensusSuites() map[string]suite {
	return map[string]suite{
		"calls": callsSuite, "errors": errorsSuite, "hello": helloSuite, "feed": feedSuite, "history": historySuite,
	}
}

// The calls of a batch are answered each for itself, and a write is there for the reads after it.
func callsSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	k := []byte(key(t, "k"))
	answers := c.do(
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: k, Value: []byte("1")}),
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: k, Value: []byte("2"), PrevKv: true}),
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{}),
	)
	first, second := read[pb.PutResponse](t, answers[0]), read[pb.PutResponse](t, answers[1])
	require.Equal(t, first.GetHeader().GetRevision()+1, second.GetHeader().GetRevision())
	require.Equal(t, second.GetHeader().GetRevision(), answers[1].GetRevision())
	require.Equal(t, "1", string(second.GetPrevKv().GetValue()))
	require.Equal(t, codes.InvalidArgument, codes.Code(answers[2].GetCode()))

	got := read[pb.RangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: k}))[0])
	require.Equal(t, "2", string(got.GetKvs()[0].GetValue()))
	require.GreaterOrEqual(t, c.fence().GetRevision(), second.GetHeader().GetRevision())
	c.close()
}

func errorsSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	k := []byte(key(t, "k"))
	for _, tc := range []struct {
		call *consensusv1.Call
		code codes.Code
		text string
	}{
		{call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{}), codes.InvalidArgument, "etcdserver: key is not provided"},
		{call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: k, Revision: 1 << 40}), codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: k, Lease: 77}), codes.NotFound, "etcdserver: requested lease not found"},
	} {
		answer := c.do(tc.call)[0]
		require.Equal(t, tc.code, codes.Code(answer.GetCode()), tc.text)
		require.Equal(t, tc.text, answer.GetMessage())
		require.Empty(t, answer.GetResponse())
		require.Zero(t, answer.GetRevision())
	}
}

// Who speaks another version, or means another cluster, is told so by the end of the stream.
func helloSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	for _, hello := range []*consensusv1.Hello{{Version: 99}, {Version: 1, ClusterId: 12345}} {
		stream, err := consensusv1.NewConsensusClient(conn).Calls(bounded(t))
		require.NoError(t, err)
		require.NoError(t, stream.Send(&consensusv1.CallBatch{Hello: hello}))
		_, err = stream.Recv()
		require.Equal(t, codes.FailedPrecondition, status.Code(err))
	}
}

// The feed begins with a heartbeat that tells its position, and goes on from there without a hole.
func feedSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c := newCaller(t, conn)
	before := c.fence().GetRevision()
	feed, err := consensusv1.NewConsensusClient(conn).Feed(bounded(t), &consensusv1.FeedRequest{Name: t.Name()})
	require.NoError(t, err)
	first, err := feed.Recv()
	require.NoError(t, err)
	require.Empty(t, first.GetRevisions())
	require.GreaterOrEqual(t, first.GetHeadRevision(), before)
	position := first.GetHeadRevision()
	k := key(t, "k")
	written := []int64{c.put(k, "1"), c.put(k, "2"), c.remove(k)}
	var got []int64
	for position < written[2] {
		message, err := feed.Recv()
		require.NoError(t, err)
		require.LessOrEqual(t, message.GetPreviousRevision(), position)
		for _, r := range message.GetRevisions() {
			if r.GetRevision() <= position {
				continue
			}
			got = append(got, r.GetRevision())
			require.Equal(t, k, string(r.GetEvents()[0].GetKey()))
			require.Equal(t, r.GetRevision() == written[2], r.GetEvents()[0].GetDeleted())
		}
		position = max(position, message.GetLastRevision())
	}
	require.Equal(t, written, got)
}

// History gives what was asked for in intervals without holes, and says how it ends.
func historySuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	client, c := consensusv1.NewConsensusClient(conn), newCaller(t, conn)
	k := key(t, "k")
	before := c.fence().GetRevision()
	first := c.put(k, "1")
	c.put(key(t, "other"), "x")
	want := []int64{first, c.put(k, "2")}
	last := c.put(key(t, "other"), "y")
	history := func(after, upTo int64) (got []int64, position int64, err error) {
		stream, err := client.History(bounded(t), &consensusv1.HistoryRequest{
			AfterRevision: after, UpToRevision: upTo, Ranges: []*consensusv1.KeyRange{{Key: []byte(k)}}, MessageBytesMax: 1,
		})
		require.NoError(t, err)
		position = after
		for {
			message, err := stream.Recv()
			if err != nil {
				return got, position, err
			}
			require.Equal(t, position, message.GetPreviousRevision())
			position = message.GetLastRevision()
			for _, r := range message.GetRevisions() {
				got = append(got, r.GetRevision())
			}
		}
	}
	got, position, err := history(before, last)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, want, got)
	require.Equal(t, last, position)
	got, position, err = history(oldLast-1, last)
	require.ErrorIs(t, err, io.EOF)
	require.Equal(t, want, got)
	require.Equal(t, last, position)

	// What lies ahead is waited for, as long as the caller does.
	ahead, err := client.History(bounded(t), &consensusv1.HistoryRequest{AfterRevision: last, UpToRevision: last + 1})
	require.NoError(t, err)
	c.put(k, "3")
	message, err := ahead.Recv()
	require.NoError(t, err)
	require.Equal(t, last+1, message.GetRevisions()[0].GetRevision())
	_, err = ahead.Recv()
	require.ErrorIs(t, err, io.EOF)
	ctx, cancel := context.WithCancel(bounded(t))
	ahead, err = client.History(ctx, &consensusv1.HistoryRequest{AfterRevision: last + 1, UpToRevision: last + 1000})
	require.NoError(t, err)
	cancel()
	_, err = ahead.Recv()
	require.Equal(t, codes.Canceled, status.Code(err))
}
