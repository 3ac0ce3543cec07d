package direct

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// bufferMessages bounds the unread messages of a stream in each direction. Small: a batch protocol above it brings
// its own credit, and a deep buffer would only hide a slow receiver.
const bufferMessages = 8

// Conn is one in-process server together with the connection to it. All methods may be called at once from any
// goroutine. Make one with New.
type Conn struct {
	name string
	peer *peer.Peer
	// carried are the values of a handler's context, see serverContext.
	carried context.Context
	unary   grpc.UnaryServerInterceptor
	stream  grpc.StreamServerInterceptor

	// ctx ends when the Conn is closed, and with it every call.
	ctx    context.Context
	cancel context.CancelFunc

	mu       sync.RWMutex
	methods  map[string]method
	services map[string]bool
	closed   bool
	running  sync.WaitGroup
}

var (
	_ grpc.ServiceRegistrar    = (*Conn)(nil)
	_ grpc.ClientConnInterface = (*Conn)(nil)
)

// method is one registered method; exactly one of unary and stream is set.
type method struct {
	impl   any
	unary  *grpc.MethodDesc
	stream *grpc.StreamDesc
}

// Option changes how a Conn serves.
type Option func(*Conn)

// UnaryInterceptors puts the interceptors around every unary handler, the first one outermost, as
// grpc.ChainUnaryInterceptor does for a server.
func UnaryInterceptors(chain ...grpc.UnaryServerInterceptor) Option {
	return func(c *Conn) { c.unary = chainUnary(chain) }
}

// StreamInterceptors puts the interceptors around every stream handler, the first one outermost, as
// grpc.ChainStreamInterceptor does for a server.
func StreamInterceptors(chain ...grpc.StreamServerInterceptor) Option {
	return func(c *Conn) { c.stream = chainStream(chain) }
}

// New makes a Conn without services. The name says which part is behind it: it is the peer address that both sides
// see ("direct:NAME") and stands in the texts of errors.
func New(name string, opts ...Option) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	p := &peer.Peer{Addr: address(name), LocalAddr: address(name)}
	c := &Conn{
		name: name, peer: p, carried: carried(p), ctx: ctx, cancel: cancel,
		methods: map[string]method{}, services: map[string]bool{},
	}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// RegisterService adds a service; generated code calls it. Calls that came earlier got Unimplemented. It panics, as a
// gRPC server does, if the service is there already or impl does not implement it: both are mistakes of wiring.
func (c *Conn) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); impl != nil && !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("direct: %T does not implement %v", impl, want))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.services[desc.ServiceName] {
		panic("direct: service " + desc.ServiceName + " is registered twice on " + c.name)
	}
	c.services[desc.ServiceName] = true
	for i := range desc.Methods {
		c.methods["/"+desc.ServiceName+"/"+desc.Methods[i].MethodName] = method{impl: impl, unary: &desc.Methods[i]}
	}
	for i := range desc.Streams {
		c.methods["/"+desc.ServiceName+"/"+desc.Streams[i].StreamName] = method{impl: impl, stream: &desc.Streams[i]}
	}
}

// Close ends every call: handlers see their context end, clients get Unavailable, and later calls get Unavailable too.
// It returns when all handlers have returned. It may be called more than once, but not from a handler.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
}

// admit looks the method up and counts the call as running; the caller calls c.running.Done when its handler has
// returned.
func (c *Conn) admit(fullMethod string, stream bool) (method, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return method{}, c.errClosed()
	}
	m, ok := c.methods[fullMethod]
	if !ok || (m.stream != nil) != stream {
		return method{}, c.errUnimplemented(fullMethod)
	}
	c.running.Add(1)
	return m, nil
}

func (c *Conn) errClosed() error {
	return status.Errorf(codes.Unavailable, "direct: %s is closed", c.name)
}

// errUnimplemented uses the two texts of a gRPC server. The caller holds c.mu.
func (c *Conn) errUnimplemented(fullMethod string) error {
	service, name, ok := strings.Cut(strings.TrimPrefix(fullMethod, "/"), "/")
	if !ok {
		return status.Errorf(codes.Unimplemented, "malformed method name: %q", fullMethod)
	}
	if !c.services[service] {
		return status.Errorf(codes.Unimplemented, "unknown service %v", service)
	}
	return status.Errorf(codes.Unimplemented, "unknown method %v for service %v", name, service)
}
