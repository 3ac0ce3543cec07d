package edge

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// connection is what the proxy remembers of one client connection.
type connection struct {
	credentials.CommonAuthInfo
	inner   credentials.AuthInfo
	highest atomic.Int64
}

// AuthType is that of the credentials behind it.
func (c *connection) AuthType() string {
	if c.inner == nil {
		return "insecure"
	}
	return c.inner.AuthType()
}

// seen is the highest revision that this connection was told.
func (c *connection) seen() int64 { return c.highest.Load() }

func (c *connection) saw(revision int64) {
	for {
		old := c.highest.Load()
		if revision <= old || c.highest.CompareAndSwap(old, revision) {
			return
		}
	}
}

// raise gives the highest revision that this connection was told, which counts the given one as told.
func (c *connection) raise(revision int64) int64 {
	c.saw(revision)
	return c.seen()
}

// connectionOf finds the connection of a call; nil if it came another way.
func connectionOf(ctx context.Context) *connection {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	c, _ := p.AuthInfo.(*connection)
	return c
}

// Connections wraps server credentials so that every connection has a place for what is remembered of it: the
// handshake's result is the one thing that gRPC hands from a connection to its calls, at no cost per call.
func Connections(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return connections{inner}
}

type connections struct {
	credentials.TransportCredentials
}

// ServerHandshake adds the place to the handshake's result.
func (c connections) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	remembered := &connection{inner: info}
	if common, ok := info.(interface {
		GetCommonAuthInfo() credentials.CommonAuthInfo
	}); ok {
		remembered.CommonAuthInfo = common.GetCommonAuthInfo()
	}
	return conn, remembered, nil
}

// Clone copies the credentials.
func (c connections) Clone() credentials.TransportCredentials {
	return connections{c.TransportCredentials.Clone()}
}
