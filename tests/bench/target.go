package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
)

// target is the system as the load sees it: connections, spread evenly over its endpoints.
type target struct {
	endpoints []string
	conns     []*grpc.ClientConn
}

const connectTimeout = 20 * time.Second

// responseBytesMax lets large ranges through, as etcd's own client does.
const responseBytesMax = 1 << 30

// reconnectEvery is how soon a connection that broke is tried again: one to a process that was killed and started again must not
// stay away longer than the process.
const reconnectEvery = 50 * time.Millisecond

// dial makes a connection that stands later.
func dial(endpoint string, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+endpoint, append(more,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectEvery, Multiplier: 1, MaxDelay: reconnectEvery},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(responseBytesMax)))...)
}

// connect returns when all connections stand, so that no run pays for them.
func connect(ctx context.Context, endpoints []string, connections int, more ...grpc.DialOption) (*target, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	t := &target{endpoints: endpoints}
	for i := range connections {
		conn, err := dial(endpoints[i%len(endpoints)], more...)
		if err != nil {
			return nil, errors.Join(err, t.close())
		}
		t.conns = append(t.conns, conn)
		conn.Connect()
	}
	for _, conn := range t.conns {
		for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
			if !conn.WaitForStateChange(ctx, state) {
				return nil, errors.Join(fmt.Errorf("connect %s: %w", conn.Target(), ctx.Err()), t.close())
			}
		}
	}
	return t, nil
}

// conn is the connection of the client with that number.
func (t *target) conn(client int) *grpc.ClientConn { return t.conns[client%len(t.conns)] }

// endpoint is the number of the endpoint of that client.
func (t *target) endpoint(client int) int { return client % len(t.conns) % len(t.endpoints) }

func (t *target) close() error {
	var errs []error
	for _, conn := range t.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}
