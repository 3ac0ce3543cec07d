package edge

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// A call that is not sampled makes no span here, and allocates nothing for it. The tracer is not asked at all: there is none.
func TestWhatIsNotSampledMakesNoSpan(t *testing.T) {
	s := &Server{}
	unsampled := telemetry.EncodeSpanContext(trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}}))
	for _, call := range []*consensusv1.Call{{}, {SpanContext: unsampled}} {
		require.Zero(t, testing.AllocsPerRun(1000, func() { require.Nil(t, s.startSpan(call, "read")) }))
	}
}
