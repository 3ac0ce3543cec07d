package framework

import (
	"context"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const dialTimeout = 10 * time.Second

// Client is a clientv3 over all client URLs. It is closed with the test.
func (c *Cluster) Client(tb testing.TB) *clientv3.Client {
	tb.Helper()
	return c.ClientAt(tb, c.Endpoints()...)
}

// ClientAt is a clientv3 over the given URLs alone.
func (c *Cluster) ClientAt(tb testing.TB, endpoints ...string) *clientv3.Client {
	tb.Helper()
	return c.ClientWith(tb, nil, endpoints...)
}

// ClientWith is a clientv3 over the given URLs with further options for its connections. It is closed with the test.
func (c *Cluster) ClientWith(tb testing.TB, options []grpc.DialOption, endpoints ...string) *clientv3.Client {
	tb.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: dialTimeout, DialOptions: options, Logger: zap.NewNop()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// Conn is a bare gRPC connection to one client URL: no retries, nothing hidden. It is closed with the test.
func (c *Cluster) Conn(tb testing.TB, endpoint string) *grpc.ClientConn {
	tb.Helper()
	return Dial(tb, HostPort(tb, endpoint))
}

// Dial is a bare gRPC connection to host:port. It is closed with the test.
func Dial(tb testing.TB, hostPort string) *grpc.ClientConn {
	tb.Helper()
	const responseBytesMax = 64 << 20
	conn, err := grpc.NewClient(hostPort, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(responseBytesMax)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return conn
}

// Etcdctl runs the real etcdctl against all client URLs and gives what it wrote. The package's Main must name etcdctl.
func (c *Cluster) Etcdctl(tb testing.TB, args ...string) (stdout, stderr string, err error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, Program(tb, "etcdctl"), append([]string{"--endpoints", strings.Join(c.Endpoints(), ",")}, args...)...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// Get is an HTTP GET: the status and the body.
func Get(tb testing.TB, url string) (code int, body string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), dialTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return response.StatusCode, string(data)
}
