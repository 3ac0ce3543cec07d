package app

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/direct"
)

// historyOf reads a whole history and checks that its intervals are contiguous.
func historyOf(t *testing.T, client consensusv1.ConsensusClient, request *consensusv1.HistoryRequest) ([]*feedv1.Message, error) {
	t.Helper()
	stream, err := client.History(t.Context(), request)
	require.NoError(t, err)
	var messages []*feedv1.Message
	position := request.GetAfterRevision()
	for {
		message, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return messages, err
		}
		require.Equal(t, position, message.GetPreviousRevision())
		require.Greater(t, message.GetLastRevision(), position)
		require.GreaterOrEqual(t, message.GetHeadRevision(), message.GetLastRevision())
		position = message.GetLastRevision()
		messages = append(messages, message)
	}
}

func revisionsOf(messages []*feedv1.Message) (list []int64) {
	for _, message := range messages {
		for _, revision := range message.GetRevisions() {
			list = append(list, revision.GetRevision())
		}
	}
	return list
}

// History joins store and memory without a seam, covers what does not match, and never leaves a compacted deletion out silently.
func TestHistoryAtItsBoundaries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	node := runNode(t, testConfig(t, dir))
	c := newCaller(t, node.direct)
	write := func(key string) {
		t.Helper()
		read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte(key)}))[0])
	}
	write("a")                                                                                                                          // 2
	write("b")                                                                                                                          // 3
	read[pb.DeleteRangeResponse](t, c.do(call(t, consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte("a")}))[0]) // 4
	node.stop()

	node = runNode(t, testConfig(t, dir)) // the memory begins after 4
	c = newCaller(t, node.direct)
	client := consensusv1.NewConsensusClient(node.direct)
	write("a") // 5
	write("b") // 6
	messages, err := historyOf(t, client, &consensusv1.HistoryRequest{MessageBytesMax: 1})
	require.NoError(t, err)
	require.Equal(t, []int64{2, 3, 4, 5, 6}, revisionsOf(messages))
	messages, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 2, UpToRevision: 5})
	require.NoError(t, err)
	require.Equal(t, []int64{3, 4, 5}, revisionsOf(messages))
	messages, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 1, Ranges: []*consensusv1.KeyRange{{Key: []byte("none")}}})
	require.NoError(t, err)
	require.Empty(t, revisionsOf(messages))
	require.EqualValues(t, 6, messages[len(messages)-1].GetLastRevision(), "the intervals cover what does not match")
	messages, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 6})
	require.NoError(t, err)
	require.Empty(t, messages)

	// The compact revision itself is kept, also if it is a deletion; from below it the follower must hear that it is gone.
	read[pb.CompactionResponse](t, c.do(call(t, consensusv1.Method_METHOD_COMPACT, &pb.CompactionRequest{Revision: 4, Physical: true}))[0])
	messages, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 3})
	require.NoError(t, err)
	require.Equal(t, []int64{4, 5, 6}, revisionsOf(messages))
	_, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 2})
	require.Equal(t, codes.OutOfRange, status.Code(err))
	require.ErrorContains(t, err, "required revision has been compacted")
	messages, err = historyOf(t, client, &consensusv1.HistoryRequest{AfterRevision: 4})
	require.NoError(t, err)
	require.Equal(t, []int64{5, 6}, revisionsOf(messages))

	// Beyond what is applied it waits, as long as the caller does.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ahead, err := client.History(ctx, &consensusv1.HistoryRequest{AfterRevision: 6, UpToRevision: 1000})
	require.NoError(t, err)
	_, err = ahead.Recv()
	require.Error(t, err)

	// A heartbeat says the new compact revision, although nothing was written since.
	feed, err := client.Feed(t.Context(), &consensusv1.FeedRequest{})
	require.NoError(t, err)
	first, err := feed.Recv()
	require.NoError(t, err)
	require.EqualValues(t, 4, first.GetCompactRevision())
}

// Every call of a batch gets one answer: local reads, reads that wait, and calls that are refused.
func TestEveryCallOfABatchIsAnswered(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	c := newCaller(t, node.direct)
	get := func(serializable bool, minRevision int64, timeoutMs uint32) *consensusv1.Call {
		r := call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k"), Serializable: serializable})
		r.MinRevision, r.TimeoutMs = minRevision, timeoutMs
		return r
	}
	all := call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")})
	answers := c.do(
		get(true, 0, 0), get(true, 2, 0), get(true, 100, 20), get(false, 0, 0), all,
		call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}),
		call(t, consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{}),
		call(t, consensusv1.Method_METHOD_HASH_KV, &pb.HashKVRequest{}),
		call(t, consensusv1.Method_METHOD_MOVE_LEADER, &pb.MoveLeaderRequest{TargetID: 5}),
		call(t, consensusv1.Method_METHOD_LEASE_REVOKE, &pb.LeaseRevokeRequest{ID: 5}),
		call(t, consensusv1.Method_METHOD_ALARM, &pb.AlarmRequest{}),
		call(t, consensusv1.Method_METHOD_MEMBER_LIST, &pb.MemberListRequest{Linearizable: true}),
		&consensusv1.Call{Method: consensusv1.Method_METHOD_LEASE_REVOKE, Request: make([]byte, 2<<20)},
		&consensusv1.Call{Method: 1000},
	)
	for i, answer := range answers {
		require.NotNil(t, answer, i)
	}
	require.Equal(t, "etcdserver: request timed out", answers[2].GetMessage())
	require.Equal(t, "etcdserver: bad leader transferee", answers[8].GetMessage())
	require.Equal(t, "etcdserver: requested lease not found", answers[9].GetMessage())
	require.NotZero(t, read[pb.AlarmResponse](t, answers[10]).GetHeader().GetRevision())
	require.Zero(t, read[pb.MemberListResponse](t, answers[11]).GetHeader().GetRevision())
	require.NotZero(t, answers[12].GetCode())
	require.Equal(t, codes.Unimplemented, codes.Code(answers[13].GetCode()))
}

// The member's own services answer as etcd's do.
func TestMemberServices(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	conn := direct.New("admin")
	defer conn.Close()
	node.RegisterAdmin(conn)
	put, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, err)
	got, err := pb.NewKVClient(conn).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	require.NoError(t, err)
	require.Equal(t, put.GetHeader().GetRevision(), got.GetKvs()[0].GetModRevision())
	require.Equal(t, put.GetHeader(), got.GetHeader())
	moved, err := pb.NewMaintenanceClient(conn).MoveLeader(t.Context(), &pb.MoveLeaderRequest{TargetID: node.memberID})
	require.NoError(t, err)
	require.Nil(t, moved.GetHeader(), "as etcd's")
	_, err = pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{})
	require.ErrorContains(t, err, "etcdserver: key is not provided")
}

// A stream that ends while calls are in flight leaves nothing behind that keeps the node from closing.
func TestAStreamEndsWithCallsInFlight(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := consensusv1.NewConsensusClient(node.direct).Calls(ctx)
	require.NoError(t, err)
	waits := call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	waits.MinRevision = 1 << 30
	batch := &consensusv1.CallBatch{Hello: &consensusv1.Hello{Version: 1}}
	for id := range uint64(100) {
		batch.Calls = append(batch.Calls, &consensusv1.Call{Id: id, Method: waits.GetMethod(), Request: waits.GetRequest(), MinRevision: waits.GetMinRevision()})
	}
	require.NoError(t, stream.Send(batch))
	_, err = stream.Recv()
	require.NoError(t, err)
	cancel()
	began := time.Now()
	node.stop()
	require.Less(t, time.Since(began), closeMax)
}
