package direct

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// isolated is the client's context as the other side of a network would see it: its end and its deadline, and only the
// values that a network carries.
type isolated struct {
	context.Context
	carried context.Context
}

// Value hides the client's values, among them its outgoing metadata and its trace span.
func (c isolated) Value(key any) any { return c.carried.Value(key) }

// AfterFunc lets the context package attach children without a goroutine for each: hiding values also hides the
// marker by which it would have recognised its own types.
func (c isolated) AfterFunc(f func()) func() bool { return context.AfterFunc(c.Context, f) }

// carried are the values of every handler's context without metadata: made once, since most calls have none.
func carried(p *peer.Peer) context.Context {
	return peer.NewContext(metadata.NewIncomingContext(context.Background(), metadata.MD{}), p)
}

// serverContext makes the handler's context for a client's: with its end and deadline, its outgoing metadata as
// incoming metadata, and the peer. It ends on Close as well, and when release is called, which must happen.
func (c *Conn) serverContext(client context.Context, r *reply) (ctx context.Context, release func()) {
	values := c.carried
	if md, ok := metadata.FromOutgoingContext(client); ok {
		values = metadata.NewIncomingContext(values, md)
	}
	values = grpc.NewContextWithServerTransportStream(values, r)
	ctx, cancel := context.WithCancel(isolated{client, values})
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// address is the peer address of both sides: the name of the part behind the Conn.
type address string

func (address) Network() string  { return "direct" }
func (a address) String() string { return "direct:" + string(a) }

// handlerError is what the client gets for a handler's error: a status as it is, a context's error as Canceled or
// DeadlineExceeded, anything else as Unknown with its text.
func handlerError(err error) error {
	if err == nil {
		return nil
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	return st.Err()
}

// contextError is the status of an ended context; the caller knows that it ended.
func contextError(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Canceled, context.Canceled.Error())
}
