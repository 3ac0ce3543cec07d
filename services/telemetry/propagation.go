package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
)

// Inject puts the trace context of ctx into a carrier, as the W3C header traceparent (and tracestate, if there is one).
// Without a valid span it puts nothing. Bus headers are carriers.
func Inject(ctx context.Context, carrier propagation.TextMapCarrier) {
	propagation.TraceContext{}.Inject(ctx, carrier)
}

// Extract gives ctx the remote trace context in the carrier; ctx itself if there is none.
func Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier)
}

// Outgoing gives a client's ctx the metadata that carries its trace to the server.
func Outgoing(ctx context.Context) context.Context {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	Inject(ctx, carrier(md))
	return metadata.NewOutgoingContext(ctx, md)
}

// Incoming gives a handler's ctx the trace context that its client sent; ctx itself if there was none.
func Incoming(ctx context.Context) context.Context {
	// Most calls of most clients carry none; look before copying all metadata.
	if len(metadata.ValueFromIncomingContext(ctx, "traceparent")) == 0 {
		return ctx
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return Extract(ctx, carrier(md))
}

// carrier is gRPC metadata as OpenTelemetry sees it.
type carrier metadata.MD

// Get is the first value of the key.
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of the key.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys are all keys.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
