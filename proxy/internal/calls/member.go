package calls

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
)

// Ask makes a call to the node at an endpoint and to no other, once, and waits for the answer as long as the context lives: it is for
// what one member does with its own database, which may take minutes. The error is a gRPC status.
func (c *Client) Ask(ctx context.Context, endpoint string, call *Call) (*consensusv1.Answer, error) {
	stream, err := c.node(endpoint).Stream()
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "holdfast: member at %s cannot be reached", endpoint)
	}
	w := &waiter{done: make(chan result, 1)}
	id, err := stream.Go(&consensusv1.Call{
		Method: call.Method, Request: call.Request, SpanContext: call.SpanContext, RequireLeader: call.RequireLeader,
	}, len(call.Request)+callOverhead, w)
	switch {
	case errors.Is(err, batch.ErrFull):
		return nil, rpctypes.ErrGRPCRequestTooManyRequests
	case err != nil:
		return nil, status.Errorf(codes.Unavailable, "holdfast: member at %s cannot be reached", endpoint)
	}
	select {
	case r := <-w.done:
		switch {
		case r.err != nil:
			return nil, status.Errorf(codes.Unavailable, "holdfast: the connection to the member at %s was lost: whether it did as asked is not known", endpoint)
		case r.answer.GetCode() != 0:
			return nil, status.Error(codes.Code(r.answer.GetCode()), r.answer.GetMessage())
		}
		return r.answer, nil
	case <-ctx.Done():
		stream.Cancel(id)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}
