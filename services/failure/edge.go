package failure

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
)

// Edge maps what handlers return to what clients get, and logs what it keeps back. Put its interceptors around every
// handler of a server, innermost, so that other interceptors see what the client will see.
type Edge struct {
	// Logger receives the errors that clients see only as internal, at level error.
	Logger *slog.Logger
}

// Map is ToGRPC with the log line for an internal error; method says where it happened.
func (e Edge) Map(ctx context.Context, method string, err error) error {
	internal, out := toGRPC(err)
	if internal {
		e.Logger.ErrorContext(ctx, "internal error", "method", method, "error", err)
	}
	return out
}

// Unary is the interceptor for unary handlers.
func (e Edge) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	resp, err := next(ctx, req)
	if err != nil {
		return nil, e.Map(ctx, info.FullMethod, err)
	}
	return resp, nil
}

// Stream is the interceptor for stream handlers.
func (e Edge) Stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := next(srv, ss); err != nil {
		return e.Map(ss.Context(), info.FullMethod, err)
	}
	return nil
}
