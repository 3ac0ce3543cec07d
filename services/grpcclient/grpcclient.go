// Package grpcclient makes the connections between services.
//
// A connection finds a restarted peer within about a second, notices a dead one within about 13 s even while idle
// (the peer's server must be Internal, see package grpcserver), and resolves host names anew for each attempt. It is
// not encrypted yet. Call Close on it when done.
package grpcclient

import (
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// Config says what differs between connections. The zero value is usable.
type Config struct {
	// RecvBytesMax bounds one received message; 0 is no bound but the format's 2 GiB.
	RecvBytesMax int
	// RoundRobin spreads calls over all endpoints; otherwise they go to the first that answers.
	RoundRobin bool
	// Options are further options, interceptors for example.
	Options []grpc.DialOption
}

// The times of a connection. 10 s is the least ping interval that grpc-go allows.
const (
	pingEvery      = 10 * time.Second
	pingTimeout    = 3 * time.Second
	backoffFirst   = 100 * time.Millisecond
	backoffMax     = time.Second
	backoffFactor  = 1.6
	backoffJitter  = 0.2
	connectTimeout = 2 * time.Second
)

// The receive windows, as on the other side (see package grpcserver): a stream carries what is for many clients.
const (
	streamWindow = 4 << 20
	connWindow   = 16 << 20
)

// Dial makes a connection to a service that has one or more endpoints ("host:port"). It connects in the background and
// again for ever; calls fail with Unavailable meanwhile, unless they wait for ready. The only error is a wrong argument.
func Dial(config Config, endpoints ...string) (*grpc.ClientConn, error) {
	opts := append(options(config), config.Options...)
	switch len(endpoints) {
	case 0:
		return nil, errors.New("grpcclient: no endpoint to connect to")
	case 1:
		return dial("passthrough:///"+endpoints[0], opts)
	}
	var state resolver.State
	for _, endpoint := range endpoints {
		state.Endpoints = append(state.Endpoints,
			resolver.Endpoint{Addresses: []resolver.Address{{Addr: endpoint}}})
	}
	static := manual.NewBuilderWithScheme("static")
	static.InitialState(state)
	return dial("static:///"+endpoints[0], append(opts, grpc.WithResolvers(static)))
}

func dial(target string, opts []grpc.DialOption) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("grpcclient: %s: %w", target, err)
	}
	return conn, nil
}

func options(c Config) []grpc.DialOption {
	recv := c.RecvBytesMax
	if recv == 0 {
		recv = math.MaxInt32
	}
	policy := "pick_first"
	if c.RoundRobin {
		policy = "round_robin"
	}
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingEvery, Timeout: pingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: backoffFirst, Multiplier: backoffFactor, Jitter: backoffJitter, MaxDelay: backoffMax,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(recv), grpc.MaxCallSendMsgSize(math.MaxInt32)),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"` + policy + `":{}}]}`),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
	}
}
