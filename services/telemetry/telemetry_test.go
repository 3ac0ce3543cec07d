package telemetry_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/telemetry"
	"github.com/holdfastdb/holdfast/services/version"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a real OTLP receiver that hands on what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (r *receiver) Export(
	_ context.Context, req *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	r.got <- req
	return &collector.ExportTraceServiceResponse{}, nil
}

func receive(t *testing.T) (*receiver, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &receiver{got: make(chan *collector.ExportTraceServiceRequest, 16)}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, r)
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	return r, l.Addr().String()
}

func TestSpansReachTheReceiver(t *testing.T) {
	r, address := receive(t)
	tel, err := telemetry.Start(t.Context(), telemetry.Config{
		ServiceName: "holdfast", Component: "proxy", InstanceID: "n1", OTLPEndpoint: "http://" + address, SampleRatio: 1,
	})
	require.NoError(t, err)
	require.True(t, tel.Enabled())
	ctx, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "put")
	require.True(t, span.IsRecording())
	_, child := tel.TracerProvider().Tracer("test").Start(ctx, "propose")
	child.End()
	span.End()
	require.NoError(t, tel.Shutdown(t.Context()))

	req := <-r.got
	attrs := map[string]string{}
	for _, a := range req.ResourceSpans[0].Resource.Attributes {
		attrs[a.Key] = a.Value.GetStringValue()
	}
	require.Equal(t, map[string]string{
		"service.name": "holdfast", "service.version": version.Holdfast,
		"holdfast.component": "proxy", "service.instance.id": "n1",
	}, attrs)
	spans := req.ResourceSpans[0].ScopeSpans[0].Spans
	require.Len(t, spans, 2)
	require.Equal(t, "propose", spans[0].Name)
	require.Equal(t, spans[1].SpanId, spans[0].ParentSpanId)
}

func TestSamplingFollowsTheParent(t *testing.T) {
	_, address := receive(t)
	tel, err := telemetry.Start(t.Context(), telemetry.Config{ServiceName: "x", OTLPEndpoint: address, SampleRatio: 0})
	require.NoError(t, err)
	tracer := tel.TracerProvider().Tracer("test")
	_, root := tracer.Start(t.Context(), "root")
	require.False(t, root.IsRecording())
	parent := trace.ContextWithRemoteSpanContext(t.Context(), sampled())
	_, child := tracer.Start(parent, "child")
	require.True(t, child.IsRecording())
	child.End()
	require.NoError(t, tel.Flush(t.Context()))
	require.NoError(t, tel.Shutdown(t.Context()))
}

func TestOffIsFree(t *testing.T) {
	tel, err := telemetry.Start(t.Context(), telemetry.Config{ServiceName: "x"})
	require.NoError(t, err)
	require.False(t, tel.Enabled())
	tracer := tel.TracerProvider().Tracer("test")
	_, span := tracer.Start(t.Context(), "x")
	require.False(t, span.IsRecording())
	ctx := t.Context()
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		_, span := tracer.Start(ctx, "x")
		span.End()
	}), 1.0)
	require.NoError(t, tel.Flush(t.Context()))
	require.NoError(t, tel.Shutdown(t.Context()))
}

func TestAReceiverThatIsNotThereHoldsNothingUp(t *testing.T) {
	var log bytes.Buffer
	tel, err := telemetry.Start(t.Context(), telemetry.Config{
		ServiceName: "x", OTLPEndpoint: "127.0.0.1:1", SampleRatio: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	_, span := tel.TracerProvider().Tracer("test").Start(t.Context(), "x")
	span.End()
	otel.Handle(errors.New("first"))
	otel.Handle(errors.New("second"))
	require.Contains(t, log.String(), "first")
	require.NotContains(t, log.String(), "second")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, tel.Shutdown(ctx))
}

func TestBadConfig(t *testing.T) {
	for _, config := range []telemetry.Config{
		{OTLPEndpoint: "https://x:1"},
		{OTLPEndpoint: "x"},
		{OTLPEndpoint: ":4317"},
		{OTLPEndpoint: "http://x:1/v1/traces"},
		{OTLPEndpoint: "x:1", SampleRatio: 1.5},
		{OTLPEndpoint: "x:1", SampleRatio: -1},
		{SampleRatio: 1.5},
		{SampleRatio: -1},
		{SampleRatio: math.NaN()},
	} {
		_, err := telemetry.Start(t.Context(), config)
		require.True(t, failure.Is(err, failure.Config), "%+v: %v", config, err)
	}
}

func sampled() trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1, 2, 3}, SpanID: trace.SpanID{4, 5}, TraceFlags: trace.FlagsSampled,
	})
}

func TestSpanContextAsBytes(t *testing.T) {
	b := telemetry.EncodeSpanContext(sampled())
	require.Len(t, b, telemetry.SpanContextBytes)
	got := telemetry.DecodeSpanContext(b)
	require.Equal(t, sampled().WithRemote(true), got)
	require.Nil(t, telemetry.EncodeSpanContext(trace.SpanContext{}))
	for _, wrong := range [][]byte{nil, b[:24], append(b, 0), make([]byte, 25)} {
		require.False(t, telemetry.DecodeSpanContext(wrong).IsValid())
	}
}

func TestTraceInMetadata(t *testing.T) {
	client := metadata.AppendToOutgoingContext(t.Context(), "k", "v")
	require.Equal(t, client, telemetry.Outgoing(client), "no trace, nothing to do")
	client = telemetry.Outgoing(trace.ContextWithSpanContext(client, sampled()))
	md, _ := metadata.FromOutgoingContext(client)
	require.Equal(t, []string{"v"}, md.Get("k"))

	server := telemetry.Incoming(metadata.NewIncomingContext(t.Context(), md))
	require.Equal(t, sampled().WithRemote(true), trace.SpanContextFromContext(server))

	plain := metadata.NewIncomingContext(t.Context(), metadata.Pairs("k", "v"))
	require.Equal(t, plain, telemetry.Incoming(plain))
	bad := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", "nonsense"))
	require.False(t, trace.SpanContextFromContext(telemetry.Incoming(bad)).IsValid())
}

func TestTraceInCarrier(t *testing.T) {
	header := propagation.MapCarrier{}
	telemetry.Inject(t.Context(), header)
	require.Empty(t, header)
	telemetry.Inject(trace.ContextWithSpanContext(t.Context(), sampled()), header)
	require.Contains(t, header, "traceparent")
	require.Equal(t, sampled().WithRemote(true), trace.SpanContextFromContext(telemetry.Extract(t.Context(), header)))
}

func TestMetrics(t *testing.T) {
	w := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil)
	telemetry.MetricsHandler(telemetry.NewRegistry("proxy")).ServeHTTP(w, req)
	body := w.Body.String()
	require.Contains(t, body, `holdfast_build_info{component="proxy",goversion="`+runtime.Version()+
		`",version="`+version.Holdfast+`"} 1`)
	require.Contains(t, body, "go_goroutines")
	require.Contains(t, body, "process_cpu_seconds_total")
}
