package direct

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Context is the context the stream was opened with.
func (s *clientStream) Context() context.Context { return s.client }

// Header waits for the header and returns it. It is nil without an error if the stream ended without one; RecvMsg then
// gives the status.
func (s *clientStream) Header() (metadata.MD, error) {
	select {
	case <-s.received:
	case <-s.client.Done():
	case <-s.conn.ctx.Done():
	}
	md, _ := s.seen()
	return md, nil
}

// Trailer is the trailer, once RecvMsg has given an error.
func (s *clientStream) Trailer() metadata.MD {
	_, md := s.seen()
	return md
}

// CloseSend tells the handler that no message follows. It may be called more than once.
func (s *clientStream) CloseSend() error {
	s.closeOnce.Do(func() { close(s.halfClosed) })
	return nil
}

// SendMsg hands m over to the handler and waits while bufferMessages are unread. io.EOF means that the stream has
// ended; RecvMsg then gives its status.
func (s *clientStream) SendMsg(m any) error {
	select {
	case <-s.halfClosed:
		return status.Error(codes.Internal, "direct: SendMsg called after CloseSend")
	case <-s.done:
		return s.ended()
	case <-s.client.Done():
		return s.ended()
	default:
	}
	select {
	case s.toServer <- m:
		return nil
	case <-s.done:
	case <-s.client.Done():
	case <-s.conn.ctx.Done():
	}
	return s.ended()
}

// ended is what SendMsg returns on a stream that has ended. Generated code for a single request expects no error there
// and finds the status by receiving.
func (s *clientStream) ended() error {
	if !s.desc.ClientStreams {
		return nil
	}
	return io.EOF
}

// RecvMsg moves the next message into m. io.EOF is the end with status OK, any other error the status; both stay.
func (s *clientStream) RecvMsg(m any) error {
	if s.finished != nil {
		return s.finished
	}
	msg, err := s.next()
	if err == nil {
		err = move(m, msg)
	}
	if err == nil && !s.desc.ServerStreams {
		return s.single()
	}
	if errors.Is(err, io.EOF) && !s.desc.ServerStreams {
		err = status.Error(codes.Internal,
			"cardinality violation: received no response message from non-server-streaming RPC")
	}
	return s.finish(err)
}

// single waits for the end of a stream that has given its one response: the response counts only with status OK.
func (s *clientStream) single() error {
	switch _, err := s.next(); {
	case errors.Is(err, io.EOF):
		_ = s.finish(io.EOF) // the response counts; the next RecvMsg says the end
		return nil
	case err == nil:
		return s.finish(status.Error(codes.Internal,
			"cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message"))
	default:
		return s.finish(err)
	}
}

// next is the next message of the handler, or the stream's end after the last one.
func (s *clientStream) next() (any, error) {
	// A caller whose context has ended gets that, however much lies in the buffer.
	if s.client.Err() != nil {
		return nil, contextError(s.client)
	}
	select {
	case msg := <-s.toClient:
		return msg, nil
	default:
	}
	select {
	case msg := <-s.toClient:
		return msg, nil
	case <-s.client.Done():
		return nil, contextError(s.client)
	case <-s.conn.ctx.Done():
		return s.last(s.conn.errClosed())
	case <-s.done:
	}
	if s.status == nil {
		return s.last(io.EOF)
	}
	if s.client.Err() != nil {
		return nil, contextError(s.client)
	}
	if s.conn.ctx.Err() != nil {
		return s.last(s.conn.errClosed())
	}
	return s.last(s.status)
}

// last gives what was sent before the end, and after that the end.
func (s *clientStream) last(end error) (any, error) {
	select {
	case msg := <-s.toClient:
		return msg, nil
	default:
		return nil, end
	}
}

// finish records how the stream ended, if err is an end, and lets the handler go.
func (s *clientStream) finish(err error) error {
	if err == nil {
		return nil
	}
	s.finished = err
	s.finishOnce.Do(func() {
		if s.release != nil {
			s.release()
		}
		result := err
		if errors.Is(result, io.EOF) {
			result = nil
		}
		finish(s.opts, &s.reply, s.conn.peer, result)
	})
	return err
}
