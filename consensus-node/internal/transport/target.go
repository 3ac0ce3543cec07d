package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// target is one address of a member.
type target struct {
	url    string
	dial   string // as gRPC takes it
	secure bool
}

// parseTargets reads peer URLs, http://host:port or https://host:port.
func parseTargets(urls []string) ([]target, error) {
	if len(urls) == 0 {
		return nil, errors.New("a member without a peer URL")
	}
	targets := make([]target, 0, len(urls))
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("peer URL %q: %w", raw, err)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("peer URL %q: the scheme must be http or https", raw)
		}
		if _, _, err := net.SplitHostPort(u.Host); err != nil {
			return nil, fmt.Errorf("peer URL %q: %w", raw, err)
		}
		targets = append(targets, target{url: raw, dial: "passthrough:///" + u.Host, secure: u.Scheme == "https"})
	}
	return targets, nil
}

// receiveWindow bounds what a peer may send before it is read. It sends marks and answers alone, and with a fixed window gRPC spares the ping
// by which it would find one.
const receiveWindow = 1 << 20

// dialer connects as gRPC does by itself, and notes whether it was refused: whoever is there, nothing listens.
func dialer(refused *atomic.Bool) grpc.DialOption {
	return grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		refused.Store(errors.Is(err, syscall.ECONNREFUSED))
		return conn, err
	})
}

func (c *Config) dialOptions(to target) ([]grpc.DialOption, error) {
	creds := c.Credentials
	switch {
	case !to.secure:
		creds = insecure.NewCredentials()
	case creds == nil:
		return nil, fmt.Errorf("peer URL %s needs TLS, which is not configured", to.url)
	}
	retry := backoff.Config{BaseDelay: backoffLeast, Multiplier: 2, Jitter: 0.2, MaxDelay: backoffMost}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithStaticStreamWindowSize(receiveWindow),
		grpc.WithStaticConnWindowSize(receiveWindow),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 2 * time.Second}),
		grpc.WithDisableServiceConfig(),
	}, c.DialOptions...), nil
}
