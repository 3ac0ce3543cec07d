package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/version"
)

// Config says who the process is and where its traces go.
type Config struct {
	// ServiceName is service.name: the service's folder, or "holdfast" for standalone.
	ServiceName string
	// Component is the attribute holdfast.component of a provider for one part of standalone; empty for none.
	Component string
	// InstanceID is service.instance.id, for example the member's name; empty for none.
	InstanceID string
	// OTLPEndpoint is "host:port" or "http://host:port" of an OTLP gRPC receiver; empty turns tracing off.
	OTLPEndpoint string
	// SampleRatio is the share of traces that start here and are kept, from 0 to 1. A trace that a caller started
	// follows the caller's decision.
	SampleRatio float64
	// Logger gets what the SDK complains of, spans that could not be sent above all, at most once in complaintEvery. The
	// SDK has one place for that in a process, so the last Start with a Logger decides; nil leaves it as it is.
	Logger *slog.Logger
}

// The bounds of the exporter. Spans past the queue are dropped: tracing must never slow a request.
const (
	queueSpansMax = 8192
	batchDelay    = time.Second
	exportTimeout = 5 * time.Second
)

// complaintEvery bounds the log lines about a receiver that is away: each batch fails.
const complaintEvery = 30 * time.Second

// Telemetry is the tracing of a process. Make one with Start.
type Telemetry struct {
	provider trace.TracerProvider
	sdk      *sdk.TracerProvider // nil while tracing is off
	exporter sdk.SpanExporter
}

// Start makes the tracing; it does not wait for the receiver, which may come and go. A malformed endpoint or ratio is
// of kind failure.Config, the ratio also while tracing is off. Call Shutdown at the end.
func Start(ctx context.Context, config Config) (*Telemetry, error) {
	if !(config.SampleRatio >= 0 && config.SampleRatio <= 1) { // NaN is neither
		return nil, failure.New(failure.Config, fmt.Sprintf("the sample ratio %v must lie between 0 and 1", config.SampleRatio))
	}
	if config.OTLPEndpoint == "" {
		return &Telemetry{provider: noop.NewTracerProvider()}, nil
	}
	address, err := hostPort(config.OTLPEndpoint)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), otlptracegrpc.WithInsecure(),
		otlptracegrpc.WithTimeout(exportTimeout))
	if err != nil {
		return nil, failure.Wrap(failure.Config, "cannot export traces to "+config.OTLPEndpoint, err)
	}
	if config.Logger != nil {
		otel.SetErrorHandler(&complaints{logger: config.Logger})
	}
	t := &Telemetry{exporter: exporter}
	t.sdk = t.newProvider(config)
	t.provider = t.sdk
	return t, nil
}

func (t *Telemetry) newProvider(config Config) *sdk.TracerProvider {
	return sdk.NewTracerProvider(
		sdk.WithBatcher(t.exporter, sdk.WithMaxQueueSize(queueSpansMax), sdk.WithBatchTimeout(batchDelay)),
		sdk.WithSampler(sdk.ParentBased(sdk.TraceIDRatioBased(config.SampleRatio))),
		sdk.WithResource(resource.NewSchemaless(attributes(config)...)),
	)
}

func attributes(config Config) []attribute.KeyValue {
	list := []attribute.KeyValue{
		attribute.String("service.name", config.ServiceName),
		attribute.String("service.version", version.Holdfast),
	}
	if config.Component != "" {
		list = append(list, attribute.String("holdfast.component", config.Component))
	}
	if config.InstanceID != "" {
		list = append(list, attribute.String("service.instance.id", config.InstanceID))
	}
	return list
}

// complaints puts the SDK's errors into the log instead of on stderr as plain text.
type complaints struct {
	logger *slog.Logger

	mu   sync.Mutex
	last time.Time
}

// Handle logs err unless another was logged a moment ago.
func (c *complaints) Handle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.last) >= complaintEvery {
		c.last = now
		c.logger.Warn("tracing", "error", err)
	}
}

// hostPort is what the exporter wants of an endpoint.
func hostPort(endpoint string) (string, error) {
	if strings.HasPrefix(endpoint, "https://") {
		return "", failure.New(failure.Config, "the OTLP endpoint "+endpoint+": TLS is not supported yet, use http")
	}
	address := strings.TrimSuffix(strings.TrimPrefix(endpoint, "http://"), "/")
	if host, port, ok := strings.Cut(address, ":"); !ok || host == "" || port == "" || strings.Contains(address, "/") {
		return "", failure.New(failure.Config, "the OTLP endpoint "+endpoint+" must be host:port or http://host:port")
	}
	return address, nil
}

// TracerProvider makes the tracers; it is never nil.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.provider }

// Enabled tells whether traces go anywhere.
func (t *Telemetry) Enabled() bool { return t.sdk != nil }

// Flush sends what is queued, within ctx.
func (t *Telemetry) Flush(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	return t.sdk.ForceFlush(ctx)
}

// Shutdown sends what is queued and ends, within ctx. Spans that end later, or that a receiver which is away did not
// take by then, are lost.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if t.sdk == nil {
		return nil
	}
	// The provider waits for the export that is on its way; when ctx has ended, closing the exporter cuts that off.
	return errors.Join(t.sdk.Shutdown(ctx), t.exporter.Shutdown(ctx))
}
