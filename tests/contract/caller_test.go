package contract

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// caller speaks Consensus.Calls as a proxy does, one batch at a time.
type caller struct {
	t      *testing.T
	stream consensusv1.Consensus_CallsClient
	cancel context.CancelFunc
	id     uint64
	taken  uint64
}

func newCaller(t *testing.T, conn grpc.ClientConnInterface) *caller {
	t.Helper()
	ctx, cancel := context.WithCancel(bounded(t))
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&consensusv1.CallBatch{Hello: &consensusv1.Hello{Version: 1, Name: t.Name()}}))
	first, err := stream.Recv()
	require.NoError(t, err)
	require.NotZero(t, first.GetHello().GetClusterId())
	require.NotZero(t, first.GetHello().GetMemberId())
	return &caller{t: t, stream: stream, cancel: cancel}
}

// close ends the stream and waits until it has ended.
func (c *caller) close() {
	c.t.Helper()
	require.NoError(c.t, c.stream.CloseSend())
	for {
		if _, err := c.stream.Recv(); err != nil {
			require.ErrorIs(c.t, err, io.EOF)
			break
		}
	}
	c.cancel()
}

// do sends calls as one batch and gives their answers in the order of the calls.
func (c *caller) do(calls ...*consensusv1.Call) []*consensusv1.Answer {
	c.t.Helper()
	first := c.id + 1
	for _, call := range calls {
		c.id++
		call.Id = c.id
	}
	require.NoError(c.t, c.stream.Send(&consensusv1.CallBatch{Taken: c.taken, Calls: calls}))
	answers := make([]*consensusv1.Answer, len(calls))
	for missing := len(calls); missing > 0; {
		batch, err := c.stream.Recv()
		require.NoError(c.t, err)
		for _, answer := range batch.GetAnswers() {
			require.Nil(c.t, answers[answer.GetId()-first], "answered twice")
			answers[answer.GetId()-first] = answer
			missing--
		}
		if len(batch.GetAnswers()) > 0 {
			c.taken++
			require.NoError(c.t, c.stream.Send(&consensusv1.CallBatch{Taken: c.taken}))
		}
	}
	return answers
}

// put writes and gives the revision.
func (c *caller) put(key, value string) int64 {
	c.t.Helper()
	request := &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
	return read[pb.PutResponse](c.t, c.do(call(c.t, consensusv1.Method_METHOD_PUT, request))[0]).GetHeader().GetRevision()
}

// remove deletes and gives the revision.
func (c *caller) remove(key string) int64 {
	c.t.Helper()
	answer := c.do(call(c.t, consensusv1.Method_METHOD_DELETE_RANGE, &pb.DeleteRangeRequest{Key: []byte(key)}))[0]
	return read[pb.DeleteRangeResponse](c.t, answer).GetHeader().GetRevision()
}

// fence tells where the cluster stands.
func (c *caller) fence() *consensusv1.FenceResponse {
	c.t.Helper()
	return read[consensusv1.FenceResponse](c.t, c.do(call(c.t, consensusv1.Method_METHOD_FENCE, &consensusv1.FenceRequest{}))[0])
}

func call(t *testing.T, method consensusv1.Method, request proto.Message) *consensusv1.Call {
	t.Helper()
	data, err := proto.Marshal(request)
	require.NoError(t, err)
	return &consensusv1.Call{Method: method, Request: data}
}

func read[T any, M interface {
	*T
	proto.Message
}](t *testing.T, answer *consensusv1.Answer) M {
	t.Helper()
	require.Zero(t, answer.GetCode(), answer.GetMessage())
	m := M(new(T))
	require.NoError(t, proto.Unmarshal(answer.GetResponse(), m))
	return m
}
