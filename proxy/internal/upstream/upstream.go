// Package upstream keeps one connection to each address that the proxy calls: consensus nodes, watch-hubs and
// lease-services.
//
// It promises that all parts of the proxy share the connection to an address. Whether that is gRPC over the network or a
// direct binding is its Dialer's choice. It asks its caller to name addresses as host:port, as announcements and
// routing.Address do.
package upstream

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
)

// Conn is a connection; Close is called once, when nobody needs it any more.
type Conn interface {
	grpc.ClientConnInterface
	Close() error
}

// Dialer opens a connection without waiting for the other side, as grpc.NewClient does.
type Dialer func(address string) (Conn, error)

// errClosed is what Get gives after Close.
var errClosed = errors.New("upstream: closed")

// Pool holds the open connections. All methods may be called from any goroutine.
type Pool struct {
	dial Dialer

	mu     sync.Mutex
	conns  map[string]Conn
	closed bool
}

// NewPool makes an empty pool.
func NewPool(dial Dialer) *Pool { return &Pool{dial: dial, conns: map[string]Conn{}} }

// Get gives the connection to an address and opens it at the first call.
func (p *Pool) Get(address string) (grpc.ClientConnInterface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if conn, ok := p.conns[address]; ok {
		return conn, nil
	}
	conn, err := p.dial(address)
	if err != nil {
		return nil, fmt.Errorf("upstream: dial %s: %w", address, err)
	}
	p.conns[address] = conn
	return conn, nil
}

// Drop closes the connection to an address that is no longer part of the cluster; streams on it break.
func (p *Pool) Drop(address string) {
	p.mu.Lock()
	conn := p.conns[address]
	delete(p.conns, address)
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // nothing is left to lose on it
	}
}

// Close closes every connection; Get fails from then on.
func (p *Pool) Close() {
	p.mu.Lock()
	conns := p.conns
	p.conns, p.closed = map[string]Conn{}, true
	p.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // as above
	}
}
