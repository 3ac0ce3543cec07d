package edge

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/proxy/internal/fanout"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// Observer counts watches and makes a span for each response that carries a sampled write. It implements
// fanout.Observer.
type Observer struct {
	metrics *Metrics
	tracer  trace.Tracer
}

// NewObserver makes an Observer; a nil tracer makes no spans.
func NewObserver(metrics *Metrics, tracer trace.Tracer) *Observer {
	return &Observer{metrics: metrics, tracer: tracer}
}

// StreamOpened counts a watch stream.
func (o *Observer) StreamOpened() { o.metrics.streams.Inc() }

// StreamClosed counts it off.
func (o *Observer) StreamClosed() { o.metrics.streams.Dec() }

// Watches counts watches and those that wait for a slow client.
func (o *Observer) Watches(change, suspendedChange int) {
	o.metrics.watches.Add(float64(change))
	o.metrics.slow.Add(float64(suspendedChange))
}

// Lag implements fanout.Seen.
func (o *Observer) Lag(revisions int64, since time.Duration) {
	o.metrics.lag.Set(float64(revisions))
	o.metrics.lagTime.Set(since.Seconds())
}

// Moved implements fanout.Seen.
func (o *Observer) Moved(cause fanout.Cause, watches int) {
	o.metrics.moved.WithLabelValues(string(cause)).Add(float64(watches))
}

// Sent makes a span, linked to the writes, around the sending of a response. A write of another trace is a link rather
// than a parent, since one response carries many; the first write's trace is also the parent, so that a single write
// is one connected trace up to its delivery.
func (o *Observer) Sent(ctx context.Context, bytes, events int, spans [][]byte) func() {
	o.metrics.events.Add(float64(events))
	if o.tracer == nil || len(spans) == 0 {
		return nil
	}
	links := make([]trace.Link, 0, len(spans))
	for _, encoded := range spans {
		if sc := telemetry.DecodeSpanContext(encoded); sc.IsValid() && sc.IsSampled() {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	if len(links) == 0 {
		return nil
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, links[0].SpanContext)
	_, span := o.tracer.Start(ctx, "send etcdserverpb.Watch", trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithLinks(links...))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("messaging.operation.name", "send"),
			attribute.String("messaging.destination.name", "etcdserverpb.Watch"),
			attribute.Int("messaging.batch.message_count", len(links)),
			attribute.Int("messaging.message.body.size", bytes),
		)
	}
	return func() { span.End() }
}
