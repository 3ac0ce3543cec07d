package grpcserver_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/grpcclient"
	"github.com/holdfastdb/holdfast/services/grpcserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers unary calls with their payload and keeps streams open until they are cancelled.
type echo struct {
	pb.UnimplementedTestServiceServer
	opened chan struct{}
}

func (echo) UnaryCall(_ context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: in.Payload}, nil
}

func (e echo) FullDuplexCall(stream pb.TestService_FullDuplexCallServer) error {
	close(e.opened)
	<-stream.Context().Done()
	return stream.Context().Err()
}

// open starts a server on a free port and returns its address; it is stopped with the test.
func open(t *testing.T, config grpcserver.Config, e echo) (*grpcserver.Server, string) {
	t.Helper()
	listeners, err := grpcserver.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	config.Logger = slog.New(slog.DiscardHandler)
	config.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
	})
	s := grpcserver.New(config, listeners...)
	pb.RegisterTestServiceServer(s, e)
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		s.Stop(context.WithoutCancel(t.Context()))
		require.NoError(t, <-served)
	})
	return s, s.Addresses()[0].String()
}

func dial(t *testing.T, addresses ...string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpcclient.Dial(grpcclient.Config{}, addresses...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOnePortServesBoth(t *testing.T) {
	s, address := open(t, grpcserver.Config{}, echo{})
	ctx := within(t)
	conn := dial(t, address)

	out, err := pb.NewTestServiceClient(conn).UnaryCall(ctx, &pb.SimpleRequest{Payload: &pb.Payload{Body: []byte("x")}})
	require.NoError(t, err)
	require.Equal(t, "x", string(out.Payload.Body))

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, "PRX"} {
		req, err := http.NewRequestWithContext(ctx, method, "http://"+address+"/health", nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, method+" /health", string(body))
	}

	health := healthpb.NewHealthClient(conn)
	for _, want := range []bool{false, true, false} {
		s.SetServing(want)
		resp, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.Equal(t, want, resp.Status == healthpb.HealthCheckResponse_SERVING)
	}
}

func TestBytesInDripsAndDrabs(t *testing.T) {
	_, address := open(t, grpcserver.Config{}, echo{})
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	for _, b := range []byte("PUT /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") {
		_, err := conn.Write([]byte{b})
		require.NoError(t, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "PUT /slow", string(body))
}

func TestMessagesAreBounded(t *testing.T) {
	_, address := open(t, grpcserver.Config{RecvBytesMax: 1 << 10}, echo{})
	client := pb.NewTestServiceClient(dial(t, address))
	body := []byte(strings.Repeat("x", 2<<10))
	_, err := client.UnaryCall(within(t), &pb.SimpleRequest{Payload: &pb.Payload{Body: body}})
	require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
}

func TestInterceptorsSeeCalls(t *testing.T) {
	var seen []string
	_, address := open(t, grpcserver.Config{Unary: []grpc.UnaryServerInterceptor{
		func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			seen = append(seen, info.FullMethod)
			return next(ctx, req)
		},
	}}, echo{})
	_, err := pb.NewTestServiceClient(dial(t, address)).UnaryCall(within(t), &pb.SimpleRequest{})
	require.NoError(t, err)
	require.Equal(t, []string{pb.TestService_UnaryCall_FullMethodName}, seen)
}

// TestStopIsBounded: neither a stream that never ends, nor a silent connection, nor an idle HTTP one holds Stop up.
func TestStopIsBounded(t *testing.T) {
	e := echo{opened: make(chan struct{})}
	s, address := open(t, grpcserver.Config{GraceMax: 50 * time.Millisecond}, e)
	silent, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer silent.Close()
	stream, err := pb.NewTestServiceClient(dial(t, address)).FullDuplexCall(within(t))
	require.NoError(t, err)
	<-e.opened

	begin := time.Now()
	s.Stop(t.Context())
	require.Less(t, time.Since(begin), 4*time.Second, "less than the time to sniff")
	_, err = stream.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	_, err = silent.Read(make([]byte, 1))
	require.Error(t, err, "the silent connection is closed")
	_, err = net.Dial("tcp", address)
	require.Error(t, err, "nothing listens any more")
}

func TestStopWaitsForCalls(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	s, address := open(t, grpcserver.Config{GraceMax: 10 * time.Second, Unary: []grpc.UnaryServerInterceptor{
		func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			close(entered)
			<-release
			return next(ctx, req)
		},
	}}, echo{})
	answered := make(chan error, 1)
	client := pb.NewTestServiceClient(dial(t, address))
	ctx := within(t)
	go func() {
		_, err := client.UnaryCall(ctx, &pb.SimpleRequest{})
		answered <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.Stop(ctx) }()
	select {
	case <-stopped:
		t.Fatal("stopped while a call was on its way")
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	require.NoError(t, <-answered)
	<-stopped
}

func TestPortInUse(t *testing.T) {
	first, err := grpcserver.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	defer first[0].Close()
	taken := first[0].Addr().String()
	_, err = grpcserver.Listen(t.Context(), "127.0.0.1:0", taken)
	require.EqualError(t, err, "cannot listen on "+taken+
		": the port is in use; stop the process that has it or choose another URL: bind: address already in use")
	require.True(t, failure.Is(err, failure.Config))
	_, err = grpcserver.Listen(t.Context(), "192.0.2.1:0")
	require.ErrorContains(t, err, "this machine has no such address")
}

func TestClientFindsARestartedServer(t *testing.T) {
	e := echo{}
	listeners, err := grpcserver.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	address := listeners[0].Addr().String()
	serve := func(l []net.Listener) func() {
		s := grpcserver.New(grpcserver.Config{Logger: slog.New(slog.DiscardHandler), Internal: true}, l...)
		pb.RegisterTestServiceServer(s, e)
		served := make(chan error, 1)
		go func() { served <- s.Serve() }()
		return func() { s.Stop(context.WithoutCancel(t.Context())); require.NoError(t, <-served) }
	}
	stop := serve(listeners)
	client := pb.NewTestServiceClient(dial(t, "127.0.0.1:1", address)) // the first endpoint is dead
	_, err = client.UnaryCall(within(t), &pb.SimpleRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
	stop()
	_, err = client.UnaryCall(within(t), &pb.SimpleRequest{})
	require.Equal(t, codes.Unavailable, status.Code(err))
	listeners, err = grpcserver.Listen(t.Context(), address)
	require.NoError(t, err)
	defer serve(listeners)()
	_, err = client.UnaryCall(within(t), &pb.SimpleRequest{}, grpc.WaitForReady(true))
	require.NoError(t, err)
}

func TestDialNeedsAnEndpoint(t *testing.T) {
	_, err := grpcclient.Dial(grpcclient.Config{})
	require.Error(t, err)
}
