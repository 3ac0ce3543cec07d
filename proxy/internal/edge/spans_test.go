package edge

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/holdfastdb/holdfast/services/telemetry"
)

// tracing is on, sends to nobody, and samples no trace that begins here.
func tracing(t *testing.T) trace.Tracer {
	t.Helper()
	on, err := telemetry.Start(t.Context(), telemetry.Config{ServiceName: "proxy", OTLPEndpoint: "127.0.0.1:1"})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		defer cancel()
		_ = on.Shutdown(ctx) // nobody is there
	})
	return on.TracerProvider().Tracer("test")
}

// With tracing off nothing of it is paid. A call that is not sampled pays for one span that records nothing, and no attribute; a
// keepalive likewise; a message of a watch stream pays nothing at all.
func TestWhatIsNotSampledCostsNextToNothing(t *testing.T) {
	client := metadata.NewIncomingContext(t.Context(), metadata.Pairs("client-api-version", "3.7"))
	unsampled := metadata.NewIncomingContext(t.Context(),
		metadata.Pairs("traceparent", "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"))
	for name, c := range map[string]struct {
		tracer                     trace.Tracer
		call, continued, keepalive float64 // allocations at most
	}{
		"off":         {nil, 0, 0, 0},
		"not sampled": {tracing(t), notSampledMax, notSampledMax + continuedMax, notSampledMax},
	} {
		e := New(Config{Tracer: c.tracer})
		call := func(ctx context.Context) func() {
			return func() {
				_, span := e.span(ctx, "etcdserverpb.KV/Put")
				require.True(t, span == nil || !span.IsRecording())
				end(span, nil)
			}
		}
		require.LessOrEqual(t, testing.AllocsPerRun(1000, call(client)), c.call, name)
		require.LessOrEqual(t, testing.AllocsPerRun(1000, call(unsampled)), c.continued, name)
		keepalive := e.keepAliveTrace(client)
		require.Equal(t, c.tracer == nil, keepalive == nil)
		if keepalive != nil {
			require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { _, _ = keepalive() }), c.keepalive, name)
		}
		observer := NewObserver(NewMetrics(prometheus.NewRegistry(), false), c.tracer)
		require.Zero(t, testing.AllocsPerRun(1000, func() { _ = observer.Sent(client, 100, 1, nil) }), name)
	}
}

const (
	// notSampledMax is what the SDK takes for a span that records nothing.
	notSampledMax = 2
	// continuedMax is what it takes more to read the client's context.
	continuedMax = 6
)
