// Package trace holds that a put with a watcher on its key is one connected trace, from the proxy to the delivery, as an
// OTLP receiver sees it.
package trace

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast")...))
}

// What a client says in its traceparent.
const (
	sampledTrace   = "0af7651916cd43dd8448eb211c80319c"
	unsampledTrace = "1bf7651916cd43dd8448eb211c80319c"
	clientSpan     = "b7ad6b7169203331"
)

const timeout = 30 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// traced is ctx with W3C trace context for the server.
func traced(ctx context.Context, trace, flags string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+trace+"-"+clientSpan+"-"+flags)
}

// system is a system of ours with a watch on the key that is written.
type system struct {
	kv    pb.KVClient
	watch pb.Watch_WatchClient
}

const key = "traced"

func watched(t *testing.T, c *framework.Cluster) system {
	t.Helper()
	conn := c.Conn(t, c.Endpoints()[0])
	watch, err := pb.NewWatchClient(conn).Watch(bounded(t))
	require.NoError(t, err)
	require.NoError(t, watch.Send(&pb.WatchRequest{
		RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)}},
	}))
	r, err := watch.Recv()
	require.NoError(t, err)
	require.True(t, r.Created)
	return system{pb.NewKVClient(conn), watch}
}

// put writes and waits for the event.
func (s system) put(ctx context.Context, t *testing.T) {
	t.Helper()
	written, err := s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
	require.NoError(t, err)
	for {
		r, err := s.watch.Recv()
		require.NoError(t, err)
		if len(r.Events) > 0 {
			require.Equal(t, written.Header.Revision, r.Events[0].Kv.ModRevision)
			return
		}
	}
}

func TestOneTrace(t *testing.T) {
	for _, runtime := range framework.Runtimes() {
		if runtime.Oracle {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			collector := listen(t)
			c := runtime.Start(t, framework.Options{OTLPEndpoint: collector.address})
			s := watched(t, c)
			s.put(traced(bounded(t), unsampledTrace, "00"), t)
			s.put(traced(bounded(t), sampledTrace, "01"), t)
			spans := collector.until(bounded(t), t, sampledTrace, incomplete)
			for _, s := range spans {
				if runtime.Name == "split" {
					require.Contains(t, []string{"proxy", "consensus-node", "watch-hub"}, s.service)
					require.Empty(t, s.component)
				} else {
					require.Equal(t, "holdfast", s.service)
				}
			}
			// All that came before it on the same queues has been sent as well.
			require.Empty(t, collector.of(unsampledTrace), "the client decided not to sample")
			t.Logf("\n%s", show(spans))
		})
	}
}

// incomplete says what a put's trace lacks, from the call at the proxy to the delivery.
func incomplete(spans []span) string {
	ids := map[string]span{}
	for _, s := range spans {
		ids[s.id] = s
	}
	find := func(part, word string) (span, bool) {
		i := slices.IndexFunc(spans, func(s span) bool { return s.part() == part && strings.Contains(s.name, word) })
		if i < 0 {
			return span{}, false
		}
		return spans[i], true
	}
	call, ok := find("proxy", "Put")
	switch {
	case !ok:
		return "no span of the call at the proxy"
	case call.up != clientSpan:
		return "the proxy's span is not a child of the client's"
	case call.kind != tracev1.Span_SPAN_KIND_SERVER:
		return "the proxy's span is not of kind server"
	}
	i := slices.IndexFunc(spans, func(s span) bool { return s.part() == "consensus-node" && s.up == call.id })
	if i < 0 {
		return "no span of the consensus node below the proxy's"
	}
	write := spans[i]
	publish, ok := find("consensus-node", "publish")
	switch {
	case !ok:
		return "no span of the publishing"
	case publish.up != write.id && !slices.Contains(publish.links, write.id):
		return "the publishing does not belong to the write"
	}
	i = slices.IndexFunc(spans, func(s span) bool { return s.part() == "watch-hub" })
	if i < 0 {
		return "no span of the watch-hub"
	}
	i = slices.IndexFunc(spans, func(s span) bool { return s.part() == "proxy" && s.id != call.id && slices.Contains(s.links, write.id) })
	if i < 0 {
		return "no delivery at the proxy that is linked to the write's span"
	}
	for _, s := range spans {
		if _, known := ids[s.up]; !known && s.up != clientSpan {
			return fmt.Sprintf("%s of %s hangs on a span that nobody has sent", s.name, s.part())
		}
	}
	return ""
}

// show is the trace as a tree.
func show(spans []span) string {
	var out strings.Builder
	var below func(id, indent string)
	shown := map[string]bool{}
	line := func(s span, indent string) {
		shown[s.id] = true
		fmt.Fprintf(&out, "%s%s: %s [%s] links %v\n", indent, s.part(), s.name, s.id, s.links)
		below(s.id, indent+"  ")
	}
	below = func(id, indent string) {
		for _, s := range spans {
			if s.up == id {
				line(s, indent)
			}
		}
	}
	below(clientSpan, "")
	for _, s := range spans {
		if !shown[s.id] {
			line(s, "below "+s.up+", which did not come: ")
		}
	}
	return out.String()
}

// Without --otlp-endpoint nothing is sent, whatever the environment asks of OpenTelemetry's own libraries.
func TestOff(t *testing.T) {
	collector := listen(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+collector.address)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"+collector.address)
	t.Setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
	c := framework.Standalone(t, framework.Options{})
	watched(t, c).put(traced(bounded(t), sampledTrace, "01"), t)
	c.Stop(t) // what is queued is sent at the end
	collector.mu.Lock()
	defer collector.mu.Unlock()
	require.Zero(t, collector.connections)
	require.Empty(t, collector.spans)
}
