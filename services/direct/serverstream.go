package direct

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Context ends when the client's does, when the Conn closes, or when the handler returns.
func (s *serverStream) Context() context.Context { return s.server }

// SetTrailer adds to the trailer until the handler returns.
func (s *serverStream) SetTrailer(md metadata.MD) { _ = s.reply.SetTrailer(md) }

// SendMsg hands m over to the client and waits while bufferMessages are unread. Its error is a status: the context has
// ended, and the handler should return.
func (s *serverStream) SendMsg(m any) error {
	if s.server.Err() != nil {
		return contextError(s.server)
	}
	s.flush()
	select {
	case s.toClient <- m:
		return nil
	case <-s.server.Done():
		return contextError(s.server)
	}
}

// RecvMsg moves the client's next message into m. io.EOF means that the client called CloseSend and nothing is left.
func (s *serverStream) RecvMsg(m any) error {
	msg, err := s.next()
	if err == nil {
		err = move(m, msg)
	}
	if errors.Is(err, io.EOF) && !s.desc.ClientStreams {
		return status.Error(codes.Internal,
			"cardinality violation: received no request message from non-client-streaming RPC")
	}
	return err
}

// next is the client's next message, or how its direction ended.
func (s *serverStream) next() (any, error) {
	if s.server.Err() != nil {
		return nil, contextError(s.server)
	}
	select {
	case msg := <-s.toServer:
		return msg, nil
	default:
	}
	select {
	case msg := <-s.toServer:
		return msg, nil
	case <-s.server.Done():
		return nil, contextError(s.server)
	case <-s.halfClosed:
		// What was sent before CloseSend is in the buffer already.
		select {
		case msg := <-s.toServer:
			return msg, nil
		default:
			return nil, io.EOF
		}
	}
}
