package edge

import (
	"context"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/fanout"
	"github.com/holdfastdb/holdfast/proxy/internal/lease"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
	"github.com/holdfastdb/holdfast/services/buffers"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// Config is what an Edge stands on.
type Config struct {
	Calls    *calls.Client
	Watches  *fanout.Server
	Leases   *lease.Service
	Topology *topology.Follower
	Monitor  *topology.Monitor
	Metrics  *Metrics
	// Buffers gets the memory of answers to ranges once they are sent; nil leaves it to the garbage collector.
	Buffers *buffers.Pool
	// Tracer makes the server spans; nil turns tracing off.
	Tracer trace.Tracer
}

// Edge registers etcd's services.
type Edge struct {
	config Config
	// server is how each span is started, made once.
	server   []trace.SpanStartOption
	draining atomic.Bool
}

// New makes an Edge.
func New(config Config) *Edge {
	return &Edge{config: config, server: []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}}
}

// Register adds the services to a server that uses wire.Codec.
func (e *Edge) Register(server grpc.ServiceRegistrar) {
	services := map[string]*grpc.ServiceDesc{}
	desc := func(name string) *grpc.ServiceDesc {
		if services[name] == nil {
			services[name] = &grpc.ServiceDesc{ServiceName: name, HandlerType: (*any)(nil), Metadata: "rpc.proto"}
		}
		return services[name]
	}
	for _, r := range rpcs() {
		d := desc(r.service)
		d.Methods = append(d.Methods, grpc.MethodDesc{MethodName: r.name, Handler: e.unary(r)})
	}
	for _, r := range streams() {
		d := desc(r.service)
		d.Streams = append(d.Streams, e.streamed(r))
	}
	watchDesc, leaseDesc := desc(serviceWatch), desc(serviceLease)
	watchDesc.Streams = append(watchDesc.Streams, grpc.StreamDesc{
		StreamName: "Watch", ServerStreams: true, ClientStreams: true,
		Handler: e.stream(serviceWatch, "Watch", e.config.Watches.Serve),
	})
	leaseDesc.Streams = append(leaseDesc.Streams, grpc.StreamDesc{
		StreamName: "LeaseKeepAlive", ServerStreams: true, ClientStreams: true,
		Handler: e.stream(serviceLease, "LeaseKeepAlive", e.keepAlive),
	})
	for _, d := range services {
		server.RegisterService(d, e)
	}
}

type unaryHandler = func(srv any, ctx context.Context, dec func(any) error, next grpc.UnaryServerInterceptor) (any, error)

// unary makes the handler of one method; everything that can be looked up beforehand is.
func (e *Edge) unary(r rpc) unaryHandler {
	counts := e.config.Metrics.method(r.service, r.name, "unary")
	name := r.service + "/" + r.name
	do := e.config.Calls.Do
	if r.steps != nil {
		do = r.steps(e)
	}
	return func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		start := counts.begin()
		request := &wire.Frame{}
		if err := dec(request); err != nil {
			counts.handled(start, err)
			return nil, err
		}
		counts.received.Inc()
		call := &calls.Call{
			Method: r.method, Class: r.class, Request: request.Data, RequireLeader: requireLeader(ctx),
		}
		if r.patient != nil {
			call.Patient = r.patient(request.Data)
		}
		if r.classify != nil {
			call.Class = r.classify(request.Data, e.config.Topology.Table())
		}
		ctx, span := e.span(ctx, name)
		if span != nil && span.SpanContext().IsSampled() {
			call.SpanContext = telemetry.EncodeSpanContext(span.SpanContext())
		}
		response, err := e.call(ctx, call, do)
		counts.handled(start, err)
		counts.sent.Inc() // an error is an answer too
		end(span, err)
		if err != nil {
			return nil, err
		}
		return response, nil
	}
}

// call makes the call, for serializable reads at or after what this connection has seen.
func (e *Edge) call(
	ctx context.Context, call *calls.Call, do func(context.Context, *calls.Call) (*consensusv1.Answer, error),
) (*wire.Frame, error) {
	conn := connectionOf(ctx)
	if call.Class == routing.Serializable && conn != nil {
		call.MinRevision = conn.seen()
	}
	answer, err := do(ctx, call)
	if err != nil {
		return nil, err
	}
	if conn != nil {
		conn.saw(answer.GetRevision())
	}
	frame := &wire.Frame{Data: answer.GetResponse()}
	if call.Method == consensusv1.Method_METHOD_RANGE { // made for this call alone
		frame.Buffers = e.config.Buffers
	}
	return frame, nil
}

// stream makes the handler of one streaming method. serve is told of a lost leader only where the client asked for that.
func (e *Edge) stream(service, name string, serve func(grpc.ServerStream, <-chan struct{}) error) grpc.StreamHandler {
	counts := e.config.Metrics.method(service, name, "bidi_stream")
	return func(_ any, stream grpc.ServerStream) error {
		start := counts.begin()
		err := e.serve(&counted{ServerStream: stream, counts: counts}, serve)
		counts.handled(start, err)
		return err
	}
}

func (e *Edge) serve(stream grpc.ServerStream, serve func(grpc.ServerStream, <-chan struct{}) error) error {
	if !requireLeader(stream.Context()) {
		return serve(stream, nil)
	}
	lost := e.config.Monitor.Lost()
	if !e.config.Topology.Table().HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	return serve(stream, lost)
}

// keepAlive serves a LeaseKeepAlive stream, whose headers never go back behind what this connection has seen.
func (e *Edge) keepAlive(stream grpc.ServerStream, lost <-chan struct{}) error {
	told := func(revision int64) int64 { return revision }
	if conn := connectionOf(stream.Context()); conn != nil {
		told = conn.raise
	}
	return e.config.Leases.KeepAlive(stream, lost, told, e.keepAliveTrace(stream.Context()))
}

// keepAliveTrace makes a server span of each keepalive of a stream: the stream itself may last for months. It is nil while tracing
// is off.
func (e *Edge) keepAliveTrace(ctx context.Context) lease.Trace {
	if e.config.Tracer == nil {
		return nil
	}
	ctx = telemetry.Incoming(ctx)
	const name = serviceLease + "/LeaseKeepAlive"
	return func() ([]byte, func(int64, error)) {
		_, span := e.config.Tracer.Start(ctx, name, e.server...)
		if !span.SpanContext().IsSampled() {
			span.End()
			return nil, nil
		}
		return telemetry.EncodeSpanContext(span.SpanContext()), func(ttlS int64, err error) {
			span.SetAttributes(attribute.Int64("holdfast.lease.ttl_s", ttlS))
			if err != nil {
				span.SetStatus(codes.Error, err.Error())
			}
			span.End()
		}
	}
}

// span starts the server span of a call; nil while tracing is off.
func (e *Edge) span(ctx context.Context, name string) (context.Context, trace.Span) {
	if e.config.Tracer == nil {
		return ctx, nil
	}
	return e.start(telemetry.Incoming(ctx), name)
}

// start starts the server span of a service/method by OpenTelemetry's conventions for RPC. Attributes are made for spans that
// are kept.
func (e *Edge) start(ctx context.Context, name string) (context.Context, trace.Span) {
	ctx, span := e.config.Tracer.Start(ctx, name, e.server...)
	if span.IsRecording() {
		service, method, _ := strings.Cut(name, "/")
		span.SetAttributes(attribute.String("rpc.system", "grpc"),
			attribute.String("rpc.service", service), attribute.String("rpc.method", method))
	}
	return ctx, span
}

// end ends the span of a call with its outcome.
func end(span trace.Span, err error) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(status.Code(err))))
		if err != nil {
			span.SetStatus(codes.Error, status.Convert(err).Message())
		}
	}
	span.End()
}

// requireLeader tells whether the client wants to hear of a missing leader at once.
func requireLeader(ctx context.Context) bool {
	values := metadata.ValueFromIncomingContext(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(values) > 0 && values[0] == rpctypes.MetadataHasLeader
}
