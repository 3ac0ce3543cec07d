package direct_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/holdfastdb/holdfast/services/direct"
)

// patience bounds every wait of the suite; reaching it is a failure.
const patience = 10 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a test service whose handlers the test writes.
type script struct {
	pb.UnimplementedTestServiceServer
	unary    func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)
	download func(*pb.StreamingOutputCallRequest, pb.TestService_StreamingOutputCallServer) error
	upload   func(pb.TestService_StreamingInputCallServer) error
	duplex   func(pb.TestService_FullDuplexCallServer) error
}

func (s *script) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return s.unary(ctx, in)
}

func (s *script) StreamingOutputCall(
	in *pb.StreamingOutputCallRequest, out pb.TestService_StreamingOutputCallServer,
) error {
	return s.download(in, out)
}

func (s *script) StreamingInputCall(in pb.TestService_StreamingInputCallServer) error {
	return s.upload(in)
}

func (s *script) FullDuplexCall(both pb.TestService_FullDuplexCallServer) error {
	return s.duplex(both)
}

// bindings are the two ways to reach a service; the suite is the same for both.
var bindings = []struct {
	name string
	open func(*testing.T, *script, ...grpc.UnaryServerInterceptor) (conn grpc.ClientConnInterface, stop func())
}{
	{"grpc", openGRPC},
	{"direct", openDirect},
}

func openGRPC(t *testing.T, s *script, chain ...grpc.UnaryServerInterceptor) (grpc.ClientConnInterface, func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(chain...))
	pb.RegisterTestServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { server.Stop(); _ = conn.Close(); <-served })
	return conn, server.Stop
}

func openDirect(t *testing.T, s *script, chain ...grpc.UnaryServerInterceptor) (grpc.ClientConnInterface, func()) {
	t.Helper()
	conn := direct.New("test", direct.UnaryInterceptors(chain...))
	pb.RegisterTestServiceServer(conn, s)
	t.Cleanup(conn.Close)
	return conn, conn.Close
}

// onBoth runs a test over each binding with a context bounded by patience.
func onBoth(t *testing.T, test func(t *testing.T, ctx context.Context, s *script, client pb.TestServiceClient)) {
	t.Helper()
	for _, b := range bindings {
		t.Run(b.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			s := &script{}
			conn, _ := b.open(t, s)
			test(t, ctx, s, pb.NewTestServiceClient(conn))
		})
	}
}

// wait fails the test if c does not close or give within patience.
func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "waited too long")
		panic("unreachable")
	}
}

func text(s string) *pb.Payload { return &pb.Payload{Body: []byte(s)} }

func ask(s string) *pb.StreamingOutputCallRequest {
	return &pb.StreamingOutputCallRequest{Payload: text(s)}
}

func answer(s string) *pb.StreamingOutputCallResponse {
	return &pb.StreamingOutputCallResponse{Payload: text(s)}
}
