package engine

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/telemetry"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
)

// linksMax bounds the links of one span, as the messaging conventions do.
const linksMax = 128

// trace counts what was dispatched since the last call, and makes a span for each interval with a sampled write in it.
func (e *Engine) trace(ctx context.Context, started time.Time, header bus.Header) {
	for _, d := range e.core.Dispatched() {
		e.config.Metrics.revisions.Add(float64(len(d.Revisions)))
		e.config.Metrics.deliveries.Add(float64(d.Deliveries))
		if e.config.Tracer != nil {
			e.span(ctx, started, header, d)
		}
	}
}

// span tells of one interval: a child of the publication where the bus carried its context, else of the first sampled
// write, and linked to each.
func (e *Engine) span(ctx context.Context, started time.Time, header bus.Header, d hub.Dispatched) {
	parent, links := writes(d.Revisions)
	if len(links) == 0 {
		return
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	if header != nil {
		ctx = telemetry.Extract(ctx, header)
	}
	_, span := e.config.Tracer.Start(ctx, "process holdfast.changes",
		trace.WithTimestamp(started), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...),
		trace.WithAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.name", "process"),
			attribute.String("messaging.destination.name", "holdfast.changes"),
			attribute.Int("messaging.batch.message_count", len(d.Revisions)),
			attribute.Int64("holdfast.revision", d.To), attribute.Int("holdfast.deliveries", d.Deliveries),
		))
	span.End()
}

// writes gives the span contexts of the sampled writes among the revisions.
func writes(revisions []*feedv1.Revision) (first trace.SpanContext, links []trace.Link) {
	for _, r := range revisions {
		if len(r.GetSpanContext()) == 0 || len(links) == linksMax {
			continue
		}
		written := telemetry.DecodeSpanContext(r.GetSpanContext())
		if !written.IsSampled() {
			continue
		}
		if len(links) == 0 {
			first = written
		}
		links = append(links, trace.Link{SpanContext: written})
	}
	return first, links
}
