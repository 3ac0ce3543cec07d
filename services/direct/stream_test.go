package direct_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func TestDuplexEchoInOrder(t *testing.T) {
	const messages = 500 // well beyond any buffer
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.duplex = func(both pb.TestService_FullDuplexCallServer) error {
			for {
				in, err := both.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := both.Send(answer(string(in.Payload.Body))); err != nil {
					return err
				}
			}
		}
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		sent := make(chan error, 1)
		go func() {
			for i := range messages {
				if err := stream.Send(ask(strconv.Itoa(i))); err != nil {
					sent <- err
					return
				}
			}
			sent <- stream.CloseSend()
		}()
		for i := range messages {
			out, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, strconv.Itoa(i), string(out.Payload.Body))
		}
		require.NoError(t, wait(t, sent))
		for range 2 {
			_, err = stream.Recv()
			require.Equal(t, io.EOF, err, "the end stays")
		}
	})
}

func TestDownloadIsReadBeforeItsStatus(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		returned := make(chan struct{})
		s.download = func(in *pb.StreamingOutputCallRequest, out pb.TestService_StreamingOutputCallServer) error {
			defer close(returned)
			for i := range 5 {
				if err := out.Send(answer(string(in.Payload.Body) + strconv.Itoa(i))); err != nil {
					return err
				}
			}
			out.SetTrailer(metadata.Pairs("t", "1"))
			return status.Error(codes.DataLoss, "after five")
		}
		stream, err := client.StreamingOutputCall(ctx, ask("m"))
		require.NoError(t, err)
		wait(t, returned)
		for i := range 5 {
			out, err := stream.Recv()
			require.NoError(t, err)
			require.Equal(t, "m"+strconv.Itoa(i), string(out.Payload.Body))
		}
		_, err = stream.Recv()
		require.Equal(t, status.Error(codes.DataLoss, "after five").Error(), err.Error())
		require.Equal(t, []string{"1"}, stream.Trailer().Get("t"))
	})
}

func TestUpload(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.upload = func(in pb.TestService_StreamingInputCallServer) error {
			size := int32(0)
			for {
				m, err := in.Recv()
				if errors.Is(err, io.EOF) {
					return in.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: size})
				}
				if err != nil {
					return err
				}
				size += int32(len(m.Payload.Body))
			}
		}
		stream, err := client.StreamingInputCall(ctx)
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, stream.Send(&pb.StreamingInputCallRequest{Payload: text("four")}))
		}
		out, err := stream.CloseAndRecv()
		require.NoError(t, err)
		require.EqualValues(t, 12, out.AggregatedPayloadSize)
	})
}

func TestUploadNeedsExactlyOneResponse(t *testing.T) {
	one := &pb.StreamingInputCallResponse{}
	cases := map[string]struct {
		handler func(pb.TestService_StreamingInputCallServer) error
		want    codes.Code
	}{
		"none": {func(pb.TestService_StreamingInputCallServer) error { return nil }, codes.Internal},
		"two": {func(in pb.TestService_StreamingInputCallServer) error {
			_ = in.SendMsg(one)
			return in.SendMsg(&pb.StreamingInputCallResponse{})
		}, codes.Internal},
		"one, then an error": {func(in pb.TestService_StreamingInputCallServer) error {
			_ = in.SendMsg(one)
			return status.Error(codes.Aborted, "changed my mind")
		}, codes.Aborted},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
				s.upload = c.handler
				stream, err := client.StreamingInputCall(ctx)
				require.NoError(t, err)
				_, err = stream.CloseAndRecv()
				require.Equal(t, c.want, status.Code(err), "%v", err)
			})
		})
	}
}

func TestSendAfterTheHandlerReturned(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.duplex = func(pb.TestService_FullDuplexCallServer) error { return status.Error(codes.Aborted, "no more") }
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err))
		require.Equal(t, io.EOF, stream.Send(ask("late")))
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err), "the status stays")
	})
}

func TestBlockedSenderIsFreedByTheEnd(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		release := make(chan struct{})
		s.duplex = func(pb.TestService_FullDuplexCallServer) error {
			<-release
			return status.Error(codes.Aborted, "never read a thing")
		}
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() {
			big := ask(string(make([]byte, 1<<20)))
			for {
				if err := stream.Send(&pb.StreamingOutputCallRequest{Payload: big.Payload}); err != nil {
					ended <- err
					return
				}
			}
		}()
		close(release)
		require.Equal(t, io.EOF, wait(t, ended))
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err))
	})
}

func TestCancelReachesTheHandler(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		handler := make(chan error, 2)
		s.duplex = func(both pb.TestService_FullDuplexCallServer) error {
			_ = both.SendHeader(nil)
			_, err := both.Recv()
			handler <- err
			<-both.Context().Done()
			handler <- both.Context().Err()
			return nil
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Header()
		require.NoError(t, err)
		cancel()
		_, err = stream.Recv()
		require.Equal(t, status.Error(codes.Canceled, "context canceled").Error(), err.Error())
		require.Equal(t, codes.Canceled, status.Code(wait(t, handler)))
		require.ErrorIs(t, wait(t, handler), context.Canceled)
		require.Equal(t, io.EOF, stream.Send(ask("late")))
	})
}

func TestHandlersContextEndsWithIt(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		ended := make(chan struct{})
		s.duplex = func(both pb.TestService_FullDuplexCallServer) error {
			go func() { <-both.Context().Done(); close(ended) }()
			return nil
		}
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, io.EOF, err)
		wait(t, ended)
	})
}

func TestStreamHeaders(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.duplex = func(both pb.TestService_FullDuplexCallServer) error {
			if err := both.SetHeader(metadata.Pairs("h", "set")); err != nil {
				return err
			}
			if err := both.Send(answer("first sends the header")); err != nil {
				return err
			}
			if both.SetHeader(metadata.Pairs("h", "late")) == nil {
				return status.Error(codes.Internal, "a header after the header")
			}
			both.SetTrailer(metadata.Pairs("t", "1"))
			both.SetTrailer(metadata.Pairs("t", "2"))
			return nil
		}
		var header, trailer metadata.MD
		finished := make(chan error, 1)
		stream, err := client.FullDuplexCall(ctx, grpc.Header(&header), grpc.Trailer(&trailer),
			grpc.OnFinish(func(err error) { finished <- err }))
		require.NoError(t, err)
		md, err := stream.Header()
		require.NoError(t, err)
		require.Equal(t, []string{"set"}, md.Get("h"))
		_, err = stream.Recv()
		require.NoError(t, err)
		_, err = stream.Recv()
		require.Equal(t, io.EOF, err)
		require.Equal(t, []string{"1", "2"}, stream.Trailer().Get("t"))
		require.NoError(t, wait(t, finished))
		require.Equal(t, []string{"set"}, header.Get("h"))
		require.Equal(t, []string{"1", "2"}, trailer.Get("t"))
	})
}

func TestStreamWithoutHeader(t *testing.T) {
	onBoth(t, func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient) {
		s.duplex = func(pb.TestService_FullDuplexCallServer) error { return status.Error(codes.Aborted, "at once") }
		stream, err := client.FullDuplexCall(ctx)
		require.NoError(t, err)
		md, err := stream.Header()
		require.NoError(t, err)
		require.Empty(t, md.Get("h"))
		_, err = stream.Recv()
		require.Equal(t, codes.Aborted, status.Code(err))
	})
}

func TestUnimplementedStream(t *testing.T) {
	desc := &grpc.StreamDesc{StreamName: "Nope", ServerStreams: true, ClientStreams: true}
	for _, b := range bindings {
		conn, _ := b.open(t, &script{})
		stream, err := conn.NewStream(t.Context(), desc, "/grpc.testing.TestService/Nope")
		require.NoError(t, err, b.name)
		require.Equal(t, codes.Unimplemented, status.Code(stream.RecvMsg(&pb.Empty{})), b.name)
	}
}

func TestStoppedServerEndsStreams(t *testing.T) {
	for _, b := range bindings {
		t.Run(b.name, func(t *testing.T) {
			s := &script{duplex: func(both pb.TestService_FullDuplexCallServer) error {
				_ = both.Send(answer("hello"))
				<-both.Context().Done()
				return both.Context().Err()
			}}
			conn, stop := b.open(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			stream, err := pb.NewTestServiceClient(conn).FullDuplexCall(ctx)
			require.NoError(t, err)
			_, err = stream.Recv()
			require.NoError(t, err)
			stop()
			_, err = stream.Recv()
			require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		})
	}
}
