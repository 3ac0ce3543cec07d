package direct

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stream is what the two ends of one streaming call share.
type stream struct {
	reply
	desc *grpc.StreamDesc

	client  context.Context // the caller's
	server  context.Context // the handler's
	release func()

	toServer chan any
	toClient chan any
	// halfClosed is closed by CloseSend. The channel toServer itself never is: a late Send must fail, not panic.
	halfClosed chan struct{}

	// done is closed when the handler has returned; status is set before.
	done   chan struct{}
	status error
}

// NewStream opens a streaming call; generated code calls it. The handler runs at once on a goroutine of its own, until
// it returns; its context ends with ctx, with Close, or when it returns.
func (c *Conn) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, fullMethod string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if err := checkOptions(opts); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, contextError(ctx)
	}
	m, err := c.admit(fullMethod, true)
	if status.Code(err) == codes.Unimplemented {
		return c.refused(ctx, desc, fullMethod, opts, err), nil
	}
	if err != nil {
		return nil, err
	}
	s := newStream(ctx, fullMethod, m.stream)
	s.server, s.release = c.serverContext(ctx, &s.reply)
	go c.serveStream(m, s)
	return &clientStream{stream: s, conn: c, desc: desc, opts: opts}, nil
}

func newStream(client context.Context, fullMethod string, desc *grpc.StreamDesc) *stream {
	return &stream{
		reply:      reply{method: fullMethod, received: make(chan struct{})},
		desc:       desc,
		client:     client,
		toServer:   make(chan any, bufferMessages),
		toClient:   make(chan any, bufferMessages),
		halfClosed: make(chan struct{}),
		done:       make(chan struct{}),
	}
}

// refused is a stream to a method that is not there: opening works and reading gives the status, since over a network
// the server's refusal comes later too.
func (c *Conn) refused(
	ctx context.Context, desc *grpc.StreamDesc, fullMethod string, opts []grpc.CallOption, err error,
) grpc.ClientStream {
	s := newStream(ctx, fullMethod, desc)
	s.status = err
	s.end()
	close(s.done)
	return &clientStream{stream: s, conn: c, desc: desc, opts: opts}
}

// serveStream runs the handler and publishes its status.
func (c *Conn) serveStream(m method, s *stream) {
	defer c.running.Done()
	defer s.release()
	ss := &serverStream{s}
	var err error
	if c.stream == nil {
		err = m.stream.Handler(m.impl, ss)
	} else {
		err = c.stream(m.impl, ss, &grpc.StreamServerInfo{
			FullMethod: s.method, IsClientStream: m.stream.ClientStreams, IsServerStream: m.stream.ServerStreams,
		}, m.stream.Handler)
	}
	s.status = handlerError(err)
	s.end()
	close(s.done)
}

// clientStream is the caller's end. As in gRPC one goroutine may send while another receives.
type clientStream struct {
	*stream
	conn *Conn
	desc *grpc.StreamDesc
	opts []grpc.CallOption

	closeOnce  sync.Once
	finishOnce sync.Once
	finished   error // the status that ended the stream for the receiver; io.EOF for OK
}

// serverStream is the handler's end.
type serverStream struct{ *stream }

var (
	_ grpc.ClientStream = (*clientStream)(nil)
	_ grpc.ServerStream = (*serverStream)(nil)
)
