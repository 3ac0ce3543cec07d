package telemetry

import "go.opentelemetry.io/otel/trace"

// SpanContextBytes is the length of an encoded span context: trace id (16), span id (8), flags (1), in this order.
const SpanContextBytes = 25

// EncodeSpanContext gives a span context as SpanContextBytes bytes, or nil if it is not valid (no trace at all): then
// there is nothing to carry. The trace state stays behind.
func EncodeSpanContext(sc trace.SpanContext) []byte {
	if !sc.IsValid() {
		return nil
	}
	traceID, spanID := sc.TraceID(), sc.SpanID()
	b := make([]byte, 0, SpanContextBytes)
	b = append(b, traceID[:]...)
	b = append(b, spanID[:]...)
	return append(b, byte(sc.TraceFlags()))
}

// DecodeSpanContext is the span context that EncodeSpanContext encoded, marked as remote; the invalid one for anything
// else: a trace is never a reason to refuse a request.
func DecodeSpanContext(b []byte) trace.SpanContext {
	if len(b) != SpanContextBytes {
		return trace.SpanContext{}
	}
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID(b[:16]),
		SpanID:     trace.SpanID(b[16:24]),
		TraceFlags: trace.TraceFlags(b[24]),
		Remote:     true,
	})
}
