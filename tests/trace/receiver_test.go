package trace

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// span is a span as it was received, ids in hex.
type span struct {
	service, component  string
	name, trace, id, up string
	kind                tracev1.Span_SpanKind
	links               []string // span ids, each of the same trace unless it says so
}

// part is which of our services made the span, in split and in standalone alike.
func (s span) part() string {
	if s.component != "" {
		return s.component
	}
	return s.service
}

// receiver is an OTLP gRPC receiver.
type receiver struct {
	collectorv1.UnimplementedTraceServiceServer
	address string

	mu          sync.Mutex
	spans       []span
	changed     chan struct{}
	connections int
}

// listen starts a receiver, which ends with the test.
func listen(t *testing.T) *receiver {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &receiver{address: l.Addr().String(), changed: make(chan struct{})}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, r)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(counted{l, r})
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return r
}

// counted counts who connects.
type counted struct {
	net.Listener
	receiver *receiver
}

// Accept implements net.Listener.
func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.receiver.mu.Lock()
		c.receiver.connections++
		c.receiver.mu.Unlock()
	}
	return conn, err
}

// Export implements the collector's service.
func (r *receiver) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		attributes := resource.GetResource().GetAttributes()
		service, component := text(attributes, "service.name"), text(attributes, "holdfast.component")
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				got := span{
					service: service, component: component, name: s.GetName(), kind: s.GetKind(),
					trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()), up: hex.EncodeToString(s.GetParentSpanId()),
				}
				for _, link := range s.GetLinks() {
					name := hex.EncodeToString(link.GetSpanId())
					if other := hex.EncodeToString(link.GetTraceId()); other != got.trace {
						name += " of trace " + other
					}
					got.links = append(got.links, name)
				}
				r.spans = append(r.spans, got)
			}
		}
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func text(attributes []*commonv1.KeyValue, key string) string {
	for _, a := range attributes {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// of are the spans of a trace so far.
func (r *receiver) of(trace string) []span {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.spans), func(s span) bool { return s.trace != trace })
}

// until waits until the spans of the trace are enough, and fails with what is missing.
func (r *receiver) until(ctx context.Context, t *testing.T, trace string, missing func([]span) string) []span {
	t.Helper()
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		spans := r.of(trace)
		lacks := missing(spans)
		if lacks == "" {
			return spans
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s; the spans of the trace are\n%s", lacks, show(spans))
		}
	}
}
