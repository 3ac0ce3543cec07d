package direct_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/services/direct"
)

// What follows holds for this binding alone.

func TestNothingIsCopied(t *testing.T) {
	body := []byte("shared")
	conn := direct.New("test")
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{
		unary: func(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			return &pb.SimpleResponse{Payload: in.Payload}, nil
		},
	})
	out, err := pb.NewTestServiceClient(conn).UnaryCall(t.Context(), &pb.SimpleRequest{Payload: &pb.Payload{Body: body}})
	require.NoError(t, err)
	require.Same(t, &body[0], &out.Payload.Body[0])
}

func TestMismatchedTypesAreRefused(t *testing.T) {
	conn := direct.New("test")
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{
		unary: func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) { return nil, nil },
	})
	method := pb.TestService_UnaryCall_FullMethodName
	for _, in := range []any{&pb.Empty{}, (*pb.SimpleRequest)(nil)} {
		err := conn.Invoke(t.Context(), method, in, &pb.SimpleResponse{})
		require.Equal(t, codes.Internal, status.Code(err), "%T", in)
	}
	err := conn.Invoke(t.Context(), method, &pb.SimpleRequest{}, &pb.SimpleResponse{})
	require.Equal(t, codes.Internal, status.Code(err), "a handler that returns nil, nil")
}

func TestCallCredentialsAreRefused(t *testing.T) {
	conn := direct.New("test")
	defer conn.Close()
	err := conn.Invoke(t.Context(), "/x/y", &pb.Empty{}, &pb.Empty{}, grpc.PerRPCCredentials(noCredentials{}))
	require.Equal(t, codes.Internal, status.Code(err))
}

// TestTheCallersDeadlineIsTheTruth: over a network the handler's own words may come first.
func TestTheCallersDeadlineIsTheTruth(t *testing.T) {
	conn := direct.New("test")
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{
		unary: func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			<-ctx.Done()
			return nil, errors.New("the handler's own words")
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	_, err := pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{})
	require.Equal(t, codes.DeadlineExceeded, status.Code(err), "%v", err)
}

func TestMistakesOfWiringPanic(t *testing.T) {
	conn := direct.New("test")
	pb.RegisterTestServiceServer(conn, &script{})
	require.Panics(t, func() { pb.RegisterTestServiceServer(conn, &script{}) })
	require.Panics(t, func() { direct.New("x").RegisterService(&pb.TestService_ServiceDesc, 7) })
}

func TestStreamInterceptorsInOrder(t *testing.T) {
	var order []string
	note := func(name string) grpc.StreamServerInterceptor {
		return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			order = append(order, name+info.FullMethod)
			return next(srv, ss)
		}
	}
	conn := direct.New("test", direct.StreamInterceptors(note("a"), note("b")))
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{
		duplex: func(pb.TestService_FullDuplexCallServer) error { return status.Error(codes.Aborted, "x") },
	})
	stream, err := pb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
	require.NoError(t, err)
	_, err = stream.Recv()
	require.Equal(t, codes.Aborted, status.Code(err))
	m := pb.TestService_FullDuplexCall_FullMethodName
	require.Equal(t, []string{"a" + m, "b" + m}, order)
}

func BenchmarkUnary(b *testing.B) {
	conn := direct.New("bench")
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{
		unary: func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) { return &pb.SimpleResponse{}, nil },
	})
	client := pb.NewTestServiceClient(conn)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.UnaryCall(b.Context(), &pb.SimpleRequest{}); err != nil {
			b.Fatal(err)
		}
	}
}

// noCredentials asks for nothing; being asked at all is what is refused.
type noCredentials struct{}

func (noCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, nil
}
func (noCredentials) RequireTransportSecurity() bool { return false }

func BenchmarkStream(b *testing.B) {
	conn := direct.New("bench")
	defer conn.Close()
	pb.RegisterTestServiceServer(conn, &script{duplex: func(both pb.TestService_FullDuplexCallServer) error {
		for {
			in, err := both.Recv()
			if err != nil {
				return err
			}
			if err := both.Send(&pb.StreamingOutputCallResponse{Payload: in.Payload}); err != nil {
				return err
			}
		}
	}})
	stream, err := pb.NewTestServiceClient(conn).FullDuplexCall(b.Context())
	require.NoError(b, err)
	payload := text("x")
	b.ReportAllocs()
	for b.Loop() {
		if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: payload}); err != nil {
			b.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}
