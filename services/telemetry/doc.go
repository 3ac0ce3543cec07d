// Package telemetry makes what a process measures of itself visible: traces over OTLP, metrics for Prometheus. It is the
// only package that knows the OpenTelemetry SDK; the others use the API (go.opentelemetry.io/otel/trace) on the
// TracerProvider that is passed to them. It sets no global but the SDK's error handler.
//
// Without an endpoint the provider is the API's no-op one: spans are not made, IsRecording is false, and code that
// guards its attributes with it pays nothing.
//
// Whether a trace is kept is decided once, at the edge, and travels with the W3C trace context: in gRPC metadata
// (Outgoing, Incoming), in bus headers (Inject, Extract) and, for the calls inside a batch, as 25 bytes
// (EncodeSpanContext).
package telemetry
