package edge

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// startSpan begins a child of the call's span, or gives nil where the call is not sampled: then nothing is paid.
func (s *Server) startSpan(call *consensusv1.Call, name string) trace.Span {
	if len(call.GetSpanContext()) == 0 {
		return nil
	}
	parent := telemetry.DecodeSpanContext(call.GetSpanContext())
	if !parent.IsSampled() {
		return nil
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := s.cfg.Tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), //nolint:spancheck // endSpan or run ends it
		trace.WithAttributes(attribute.String("rpc.system", "grpc"), attribute.String("holdfast.method", call.GetMethod().String())))
	return span //nolint:spancheck // as above
}

// startOwnerSpan begins a child of the span that a lease-service sent with its call, or gives nil if it sent none that is sampled.
func (s *Server) startOwnerSpan(ctx context.Context, name string, leases int) trace.Span {
	parent := trace.SpanContextFromContext(telemetry.Incoming(ctx))
	if !parent.IsSampled() {
		return nil
	}
	_, span := s.cfg.Tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), parent), name, //nolint:spancheck // endSpan ends it
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("rpc.system", "grpc"), attribute.Int("holdfast.lease.count", leases)))
	return span //nolint:spancheck // as above
}

// encodeSpan gives the bytes that travel beside the revisions that a span's write makes.
func encodeSpan(span trace.Span) []byte { return telemetry.EncodeSpanContext(span.SpanContext()) }

// endSpan ends the span of a write with its outcome.
func endSpan(span trace.Span, outcome propose.Outcome) {
	span.SetAttributes(attribute.Int64("holdfast.revision", outcome.Revision), attribute.Bool("holdfast.proposed", !outcome.NotProposed))
	if outcome.Err != nil {
		span.SetStatus(otelcodes.Error, outcome.Err.Error())
	}
	span.End()
}
