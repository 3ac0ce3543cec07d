// Package logging makes the logger of a process: one JSON object a line, with the trace that a line belongs to.
//
// Pass the logger on; nothing here or elsewhere sets slog's default. Use the methods with a context (InfoContext and so
// on) where there is one: only they can find the trace.
package logging

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/services/config"
)

// The keys of a line that belongs to a sampled trace.
const (
	TraceKey = "trace_id"
	SpanKey  = "span_id"
)

// New makes a logger that writes lines of at least the level to w, each with the attribute "component" if it is not
// empty. Levels are in lower case, with etcd's "panic" and "fatal" above "error".
func New(w io.Writer, level slog.Level, component string) *slog.Logger {
	handler := slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: lowerLevel})
	logger := slog.New(traced{handler})
	if component != "" {
		logger = logger.With("component", component)
	}
	return logger
}

func lowerLevel(groups []string, a slog.Attr) slog.Attr {
	level, ok := a.Value.Any().(slog.Level)
	if a.Key != slog.LevelKey || len(groups) > 0 || !ok {
		return a
	}
	switch {
	case level >= config.LevelFatal:
		return slog.String(slog.LevelKey, "fatal")
	case level >= config.LevelPanic:
		return slog.String(slog.LevelKey, "panic")
	}
	return slog.String(slog.LevelKey, strings.ToLower(level.String()))
}

// traced adds the ids of a sampled trace.
type traced struct{ slog.Handler }

// Handle adds the ids if the context has a sampled span; an unsampled one leads nowhere.
func (t traced) Handle(ctx context.Context, record slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsSampled() && sc.IsValid() {
		record.AddAttrs(slog.String(TraceKey, sc.TraceID().String()), slog.String(SpanKey, sc.SpanID().String()))
	}
	return t.Handler.Handle(ctx, record)
}

// WithAttrs keeps the ids on derived loggers.
func (t traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(attrs)} }

// WithGroup keeps the ids on derived loggers.
func (t traced) WithGroup(name string) slog.Handler { return traced{t.Handler.WithGroup(name)} }
