package direct_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

func TestUnaryCarriesMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.unary = func(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			return &pb.SimpleResponse{Payload: text("re: " + string(in.Payload.Body)), Username: "u"}, nil
		}
		out, err := client.UnaryCall(ctx, &pb.SimpleRequest{Payload: text("hello")})
		require.NoError(t, err)
		require.Equal(t, "re: hello", string(out.Payload.Body))
		require.Equal(t, "u", out.Username)
	})
}

func TestUnaryErrors(t *testing.T) {
	detailed, err := status.New(codes.Aborted, "with details").WithDetails(text("detail"))
	require.NoError(t, err)
	cases := []struct {
		name string
		err  error
		want *status.Status
	}{
		{"status", status.Error(codes.OutOfRange, "beyond"), status.New(codes.OutOfRange, "beyond")},
		{"details", detailed.Err(), detailed},
		{
			"wrapped status", fmt.Errorf("while reading: %w", status.Error(codes.NotFound, "gone")),
			status.New(codes.NotFound, "while reading: rpc error: code = NotFound desc = gone"),
		},
		{"plain", errors.New("plain"), status.New(codes.Unknown, "plain")},
		{"canceled", context.Canceled, status.New(codes.Canceled, "context canceled")},
		{"deadline", context.DeadlineExceeded, status.New(codes.DeadlineExceeded, "context deadline exceeded")},
	}
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		for _, c := range cases {
			s.unary = func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) { return nil, c.err }
			_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
			got, ok := status.FromError(err)
			require.True(t, ok, "%s: %v is no status", c.name, err)
			require.Equal(t, c.want.Code(), got.Code(), c.name)
			require.Equal(t, c.want.Message(), got.Message(), c.name)
			require.Len(t, got.Details(), len(c.want.Details()), c.name)
		}
	})
}

func TestUnaryUnimplemented(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, _ *script, client pb.TestServiceClient) {
		_, err := client.UnimplementedCall(ctx, &pb.Empty{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})
	for _, b := range bindings {
		conn, _ := b.open(t, &script{})
		err := conn.Invoke(t.Context(), "/no.Such/Method", &pb.Empty{}, &pb.Empty{})
		require.Equal(t, status.Error(codes.Unimplemented, "unknown service no.Such").Error(), err.Error(), b.name)
		err = conn.Invoke(t.Context(), "/grpc.testing.TestService/Nope", &pb.Empty{}, &pb.Empty{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		require.Contains(t, err.Error(), "unknown method Nope for service grpc.testing.TestService", b.name)
	}
}

type ctxKey struct{}

func TestUnaryMetadataPeerAndIsolation(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			md, ok := metadata.FromIncomingContext(ctx)
			if !ok || len(md.Get("k")) != 2 || ctx.Value(ctxKey{}) != nil {
				return nil, status.Errorf(codes.Internal, "incoming %v, value %v", md, ctx.Value(ctxKey{}))
			}
			if _, leaked := metadata.FromOutgoingContext(ctx); leaked {
				return nil, status.Error(codes.Internal, "outgoing metadata on the server")
			}
			if p, ok := peer.FromContext(ctx); !ok || p.Addr == nil {
				return nil, status.Error(codes.Internal, "no peer")
			}
			if _, ok := ctx.Deadline(); !ok {
				return nil, status.Error(codes.Internal, "no deadline")
			}
			if err := grpc.SetHeader(ctx, metadata.Pairs("h", "1")); err != nil {
				return nil, err
			}
			if err := grpc.SendHeader(ctx, metadata.Pairs("h", "2")); err != nil {
				return nil, err
			}
			if grpc.SetHeader(ctx, metadata.Pairs("h", "3")) == nil {
				return nil, status.Error(codes.Internal, "a header after the header")
			}
			return &pb.SimpleResponse{}, grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
		}
		ctx = context.WithValue(metadata.AppendToOutgoingContext(ctx, "k", "a", "K", "b"), ctxKey{}, "secret")
		var header, trailer metadata.MD
		var p peer.Peer
		finished := make(chan error, 1)
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&p),
			grpc.OnFinish(func(err error) { finished <- err }))
		require.NoError(t, err)
		require.Equal(t, []string{"1", "2"}, header.Get("h"))
		require.Equal(t, []string{"1"}, trailer.Get("t"))
		require.NotNil(t, p.Addr)
		require.NoError(t, wait(t, finished))
	})
}

func TestUnaryTrailerComesWithAnError(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			_ = grpc.SetHeader(ctx, metadata.Pairs("h", "1"))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("t", "1"))
			return nil, status.Error(codes.Aborted, "no")
		}
		var header, trailer metadata.MD
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
		require.Equal(t, codes.Aborted, status.Code(err))
		require.Equal(t, []string{"1"}, header.Get("h"))
		require.Equal(t, []string{"1"}, trailer.Get("t"))
	})
}

func TestUnaryCallerIsLetGo(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		release := make(chan struct{})
		defer close(release)
		entered := make(chan struct{}, 1)
		ended := make(chan error, 1)
		s.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			entered <- struct{}{}
			<-ctx.Done()
			ended <- ctx.Err()
			<-release // a handler that goes on regardless
			return &pb.SimpleResponse{}, nil
		}
		ctx, cancel := context.WithCancel(ctx)
		go func() { <-entered; cancel() }()
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
		require.Equal(t, status.Error(codes.Canceled, "context canceled").Error(), err.Error())
		require.ErrorIs(t, wait(t, ended), context.Canceled)

		_, err = client.UnaryCall(ctx, &pb.SimpleRequest{})
		require.Equal(t, codes.Canceled, status.Code(err), "a call on an ended context")
	})
}

func TestUnaryDeadline(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.unary = func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			<-ctx.Done()
			return nil, ctx.Err() // over a network the server's clock may be the first to see the deadline
		}
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
		require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
	})
}

func TestUnaryInterceptorsInOrder(t *testing.T) {
	for _, b := range bindings {
		t.Run(b.name, func(t *testing.T) {
			var order []string
			note := func(name string) grpc.UnaryServerInterceptor {
				return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					order = append(order, name+info.FullMethod)
					return next(ctx, req)
				}
			}
			s := &script{unary: func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
				return &pb.SimpleResponse{}, nil
			}}
			conn, _ := b.open(t, s, note("a"), note("b"), note("c"))
			_, err := pb.NewTestServiceClient(conn).UnaryCall(t.Context(), &pb.SimpleRequest{})
			require.NoError(t, err)
			m := pb.TestService_UnaryCall_FullMethodName
			require.Equal(t, []string{"a" + m, "b" + m, "c" + m}, order)
		})
	}
}

func TestStoppedServerIsUnavailable(t *testing.T) {
	for _, b := range bindings {
		t.Run(b.name, func(t *testing.T) {
			entered := make(chan struct{})
			s := &script{unary: func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
				close(entered)
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			conn, stop := b.open(t, s)
			go func() { <-entered; stop() }()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{})
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
			_, err = pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{})
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		})
	}
}
