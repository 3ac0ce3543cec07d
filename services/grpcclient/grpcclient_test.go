package grpcclient_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/services/grpcclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counter answers with as many bytes as asked for and counts its calls.
type counter struct {
	pb.UnimplementedTestServiceServer
	calls atomic.Int64
}

func (c *counter) UnaryCall(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	c.calls.Add(1)
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, in.ResponseSize)}}, nil
}

func serve(t *testing.T) (*counter, string) {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c, s, served := &counter{}, grpc.NewServer(), make(chan struct{})
	pb.RegisterTestServiceServer(s, c)
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return c, l.Addr().String()
}

func dial(t *testing.T, config grpcclient.Config, endpoints ...string) pb.TestServiceClient {
	t.Helper()
	conn, err := grpcclient.Dial(config, endpoints...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return pb.NewTestServiceClient(conn)
}

func TestWhereCallsGo(t *testing.T) {
	a, atA := serve(t)
	b, atB := serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	call := func(client pb.TestServiceClient) {
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{}, grpc.WaitForReady(true))
		require.NoError(t, err)
	}

	first := dial(t, grpcclient.Config{}, atA, atB)
	for range 10 {
		call(first)
	}
	require.NotEqual(t, a.calls.Load() == 10, b.calls.Load() == 10, "all calls on one endpoint")

	spread := dial(t, grpcclient.Config{RoundRobin: true}, atA, atB)
	beforeA, beforeB := a.calls.Load(), b.calls.Load()
	require.Eventually(t, func() bool {
		call(spread)
		return a.calls.Load() > beforeA && b.calls.Load() > beforeB
	}, 10*time.Second, time.Millisecond, "calls on both endpoints")
}

func TestMessageBounds(t *testing.T) {
	_, address := serve(t)
	large := &pb.SimpleRequest{ResponseSize: 5 << 20} // over gRPC's default of 4 MiB
	out, err := dial(t, grpcclient.Config{}, address).UnaryCall(t.Context(), large)
	require.NoError(t, err)
	require.Len(t, out.Payload.Body, 5<<20)
	_, err = dial(t, grpcclient.Config{RecvBytesMax: 1 << 20}, address).UnaryCall(t.Context(), large)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

func TestNoEndpoint(t *testing.T) {
	_, err := grpcclient.Dial(grpcclient.Config{})
	require.Error(t, err)
}
