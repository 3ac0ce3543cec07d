package logging_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/logging"
)

func lines(t *testing.T, b *bytes.Buffer) []map[string]any {
	t.Helper()
	var all []map[string]any
	decoder := json.NewDecoder(b)
	for decoder.More() {
		line := map[string]any{}
		require.NoError(t, decoder.Decode(&line))
		all = append(all, line)
	}
	return all
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	logger := logging.New(&b, slog.LevelInfo, "proxy")
	logger.Debug("hidden")
	logger.Info("shown", "n", 7)
	logger.Log(t.Context(), config.LevelPanic, "p")
	logger.Log(t.Context(), config.LevelFatal, "f")
	got := lines(t, &b)
	require.Len(t, got, 3)
	require.Equal(t, "shown", got[0]["msg"])
	require.Equal(t, "info", got[0]["level"])
	require.Equal(t, "proxy", got[0]["component"])
	require.InDelta(t, 7, got[0]["n"], 0)
	require.Equal(t, "panic", got[1]["level"])
	require.Equal(t, "fatal", got[2]["level"])
	require.NotContains(t, got[0], logging.TraceKey)
}

func TestTraceOfSampledContexts(t *testing.T) {
	id := trace.TraceID{1}
	with := func(flags trace.TraceFlags) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{2}, TraceFlags: flags})
	}
	var b bytes.Buffer
	logger := logging.New(&b, slog.LevelInfo, "").With("a", 1)
	logger.InfoContext(trace.ContextWithSpanContext(t.Context(), with(trace.FlagsSampled)), "in")
	logger.InfoContext(trace.ContextWithSpanContext(t.Context(), with(0)), "out")
	got := lines(t, &b)
	require.Equal(t, id.String(), got[0][logging.TraceKey])
	require.Equal(t, trace.SpanID{2}.String(), got[0][logging.SpanKey])
	require.NotContains(t, got[1], logging.TraceKey)
}
