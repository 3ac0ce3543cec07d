package grpcserver

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// Config is what a Server needs to know. The zero value of each field but Logger has the meaning given.
type Config struct {
	Logger *slog.Logger
	// HTTP answers plain HTTP/1 requests; nil answers 404.
	HTTP http.Handler
	// RecvBytesMax bounds one received message; 0 is gRPC's 4 MiB. Past it the caller gets ResourceExhausted.
	RecvBytesMax int
	// StreamsMax bounds the streams of one connection at a time; 0 is no bound, as in etcd.
	StreamsMax uint32
	// KeepaliveMinTime is how often a client may ping; 0 is etcd's 5 s. Clients that ping more are disconnected.
	KeepaliveMinTime time.Duration
	// KeepaliveInterval is the silence after which the server pings; 0 is etcd's 2 h.
	KeepaliveInterval time.Duration
	// KeepaliveTimeout is the wait for the answer to a ping; 0 is etcd's 20 s.
	KeepaliveTimeout time.Duration
	// Internal is for connections between services: their clients may ping without an open stream.
	Internal bool
	// GraceMax is how long Stop lets calls finish before it closes connections; 0 is 1 s. Watch streams never finish.
	GraceMax time.Duration
	// ConnectionAgeMax is when a client is asked to connect again, spread by a tenth; 0 is never. Its calls and streams go on over the
	// old connection for ConnectionGrace (0: until they end), new ones take the new connection, which may lead elsewhere.
	ConnectionAgeMax time.Duration
	ConnectionGrace  time.Duration
	// Unary and Stream are the interceptors, the first one outermost.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor
	// Workers are kept for calls: a new goroutine for each would grow its stack for each. They take 2 KiB each while idle; calls beyond
	// them get goroutines of their own. 0 keeps none, which suits servers of few long streams.
	Workers uint32
	// Options are further options of the gRPC server, a codec for example.
	Options []grpc.ServerOption
}

// What HTTP/1 clients get: they fetch small pages and nothing else.
const (
	httpHeaderWithin   = 5 * time.Second
	httpIdleMax        = time.Minute
	httpHeaderBytesMax = 64 << 10
)

// Server is one gRPC server and one HTTP/1 server on shared listeners.
type Server struct {
	config Config
	grpc   *grpc.Server
	http   *http.Server
	health *health.Server
	muxes  []*mux
}

// New makes a server for the listeners and owns them from then on. The standard health service is registered and
// answers NOT_SERVING until SetServing.
func New(config Config, listeners ...net.Listener) *Server {
	if config.HTTP == nil {
		config.HTTP = http.NotFoundHandler()
	}
	s := &Server{
		config: config,
		grpc:   grpc.NewServer(options(config)...),
		health: health.NewServer(),
		http: &http.Server{
			Handler:           config.HTTP,
			ReadHeaderTimeout: httpHeaderWithin,
			IdleTimeout:       httpIdleMax,
			MaxHeaderBytes:    httpHeaderBytesMax,
			ErrorLog:          slog.NewLogLogger(config.Logger.Handler(), slog.LevelDebug),
		},
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.SetServing(false)
	for _, l := range listeners {
		s.muxes = append(s.muxes, newMux(config.Logger, l))
	}
	return s
}

// or is value, or fallback if value is zero.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// The keepalive times of an etcd server.
const (
	keepaliveMinTime  = 5 * time.Second
	keepaliveInterval = 2 * time.Hour
	keepaliveTimeout  = 20 * time.Second
)

// The receive windows, which bound what one stream and one connection may send before it is read. They are fixed: gRPC would
// otherwise find them by a ping and its answer for each message that comes alone, two more system calls on both sides.
// Between services a stream carries the calls of many clients.
const (
	streamWindow         = 1 << 20
	connWindow           = 4 << 20
	internalStreamWindow = 4 << 20
	internalConnWindow   = 16 << 20
)

func options(c Config) []grpc.ServerOption {
	stream, conn := int32(streamWindow), int32(connWindow)
	if c.Internal {
		stream, conn = internalStreamWindow, internalConnWindow
	}
	opts := []grpc.ServerOption{
		grpc.StaticStreamWindowSize(stream),
		grpc.StaticConnWindowSize(conn),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: or(c.KeepaliveMinTime, keepaliveMinTime), PermitWithoutStream: c.Internal,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: or(c.KeepaliveInterval, keepaliveInterval), Timeout: or(c.KeepaliveTimeout, keepaliveTimeout),
			MaxConnectionAge: c.ConnectionAgeMax, MaxConnectionAgeGrace: c.ConnectionGrace,
		}),
		grpc.MaxConcurrentStreams(or(c.StreamsMax, math.MaxUint32)),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.ChainUnaryInterceptor(c.Unary...),
		grpc.ChainStreamInterceptor(c.Stream...),
	}
	if c.Workers > 0 {
		opts = append(opts, grpc.NumStreamWorkers(c.Workers))
	}
	if c.RecvBytesMax > 0 {
		opts = append(opts, grpc.MaxRecvMsgSize(c.RecvBytesMax))
	}
	return append(opts, c.Options...)
}

// RegisterService makes generated RegisterXServer functions work on a Server; call them before Serve.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
}

// SetServing says what the standard health service answers for the server as a whole (the empty service name).
func (s *Server) SetServing(serving bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		status = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", status)
}

// Addresses are the addresses that are bound, in the order of the listeners.
func (s *Server) Addresses() []net.Addr {
	var addresses []net.Addr
	for _, m := range s.muxes {
		addresses = append(addresses, m.under.Addr())
	}
	return addresses
}

// Serve serves until Stop and returns nil then, or the first error of a listener.
func (s *Server) Serve() error {
	var group errgroup.Group
	for _, m := range s.muxes {
		group.Go(func() error {
			err := m.serve()
			if err != nil {
				s.close() // one listener lost ends all: half a server is worse than none
			}
			return err
		})
		group.Go(func() error { return ended(s.grpc.Serve(m.http2)) })
		group.Go(func() error { return ended(s.http.Serve(m.http1)) })
	}
	return group.Wait()
}

// ended drops the errors that only say that Stop was called.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Stop ends serving: health says NOT_SERVING, nothing is accepted any more, running calls get GraceMax (or until ctx
// ends, if sooner), then every connection is closed. Handlers have returned when it returns.
func (s *Server) Stop(ctx context.Context) {
	s.health.Shutdown()
	for _, m := range s.muxes {
		m.close()
	}
	grace, cancel := context.WithTimeout(ctx, or(s.config.GraceMax, time.Second))
	defer cancel()
	graceful := make(chan struct{})
	go func() { defer close(graceful); s.grpc.GracefulStop() }()
	_ = s.http.Shutdown(grace)
	select {
	case <-graceful:
	case <-grace.Done():
	}
	s.close()
	<-graceful
}

// close ends everything at once.
func (s *Server) close() {
	for _, m := range s.muxes {
		m.close()
	}
	s.grpc.Stop()
	_ = s.http.Close()
}

// Part is the server as a part of a process: it serves from Start to Stop.
func (s *Server) Part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name: name,
		Run:  func(context.Context) error { return s.Serve() },
		Stop: func(ctx context.Context) error { s.Stop(ctx); return nil },
	}
}
