package direct

import (
	"context"

	"google.golang.org/grpc"
)

// Invoke performs a unary call and moves the answer into out; generated code calls it. The request in belongs to the
// handler from then on, also when the call fails. The handler runs on a goroutine of its own, so that the end of ctx
// frees the caller at once.
func (c *Conn) Invoke(ctx context.Context, fullMethod string, in, out any, opts ...grpc.CallOption) error {
	r := &reply{method: fullMethod}
	err := c.invoke(ctx, r, in, out, opts)
	if len(opts) > 0 {
		finish(opts, r, c.peer, err)
	}
	return err
}

// outcome is what a unary handler gave.
type outcome struct {
	msg any
	err error
}

func (c *Conn) invoke(ctx context.Context, r *reply, in, out any, opts []grpc.CallOption) error {
	if err := checkOptions(opts); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	m, err := c.admit(r.method, false)
	if err != nil {
		return err
	}
	// One slot: a handler that outlives its caller leaves its answer there and ends.
	answered := make(chan outcome, 1)
	go c.serveUnary(ctx, m, r, in, answered)
	select {
	case o := <-answered:
		return c.settle(ctx, o, out)
	case <-ctx.Done():
		return contextError(ctx)
	case <-c.ctx.Done():
		return c.errClosed()
	}
}

func (c *Conn) serveUnary(client context.Context, m method, r *reply, in any, answered chan<- outcome) {
	defer c.running.Done()
	ctx, release := c.serverContext(client, r)
	defer release()
	msg, err := m.unary.Handler(m.impl, ctx, func(dst any) error { return move(dst, in) }, c.unary)
	r.end()
	answered <- outcome{msg, err}
}

// settle turns the handler's outcome into the caller's.
func (c *Conn) settle(ctx context.Context, o outcome, out any) error {
	if o.err == nil {
		return move(out, o.msg)
	}
	// A handler that gave up because its context ended may put that in its own words; the caller's context, or the
	// closed connection, is the truth, and over the network it would have come first.
	if ctx.Err() != nil {
		return contextError(ctx)
	}
	if c.ctx.Err() != nil {
		return c.errClosed()
	}
	return handlerError(o.err)
}
