package app_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/holdfastdb/holdfast/services/telemetry"
)

// tracers records what is started.
type tracers struct {
	noop.TracerProvider
	mu    sync.Mutex
	spans []startedSpan
}

type startedSpan struct {
	name   string
	parent trace.SpanContext
	config trace.SpanConfig
}

type tracer struct {
	noop.Tracer
	to *tracers
}

func (t *tracers) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{to: t} }

func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	t.to.mu.Lock()
	defer t.to.mu.Unlock()
	t.to.spans = append(t.to.spans, startedSpan{name, trace.SpanContextFromContext(ctx), trace.NewSpanStartConfig(options...)})
	return ctx, noop.Span{}
}

// A sampled write is seen at the hub as a child of it that is linked to it; the proxy gets the write's own context.
func TestSpanOfASampledWrite(t *testing.T) {
	written := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	recorded := &tracers{}
	inBubbleTraced(t, recorded, func(r *rig) {
		c := r.client("proxy1")
		c.watch(all(1, 1))
		r.sees(c, 1, 0)
		r.world.put("a") // not sampled
		r.sees(c, 1, 1, "a=v1")
		require.Empty(t, recorded.spans)
		r.world.do(func() { r.world.span = telemetry.EncodeSpanContext(written) })
		r.world.put("b")
		r.sees(c, 1, 2, "a=v1", "b=v2")
		require.Len(t, recorded.spans, 1)
		span := recorded.spans[0]
		require.Equal(t, "process holdfast.changes", span.name)
		require.Equal(t, written.TraceID(), span.parent.TraceID())
		require.Equal(t, written.SpanID(), span.parent.SpanID())
		require.Len(t, span.config.Links(), 1)
		require.Equal(t, written.SpanID(), span.config.Links()[0].SpanContext.SpanID())
		c.mu.Lock()
		defer c.mu.Unlock()
		require.Equal(t, telemetry.EncodeSpanContext(written), c.watches[1].span)
	})
}
