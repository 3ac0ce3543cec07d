package trace

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// Traces of the calls of one client, each with a traceparent of its own.
const (
	keepAliveTrace = "2af7651916cd43dd8448eb211c80319c"
	grantTrace     = "3af7651916cd43dd8448eb211c80319c"
	revokeTrace    = "4af7651916cd43dd8448eb211c80319c"
)

// A keepalive is a trace from the proxy to the owner, a revoke one from the proxy to the owner and to the node, and an expiry one from the
// owner over the node to the watchers of the lease's keys.
func TestLeases(t *testing.T) {
	for _, runtime := range framework.Runtimes() {
		if runtime.Oracle {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			collector := listen(t)
			c := runtime.Start(t, framework.Options{OTLPEndpoint: collector.address})
			s := watched(t, c)
			leases := pb.NewLeaseClient(c.Conn(t, c.Endpoints()[0]))
			granted, err := leases.LeaseGrant(traced(bounded(t), grantTrace, "01"), &pb.LeaseGrantRequest{TTL: 2})
			require.NoError(t, err)
			_, err = s.kv.Put(bounded(t), &pb.PutRequest{Key: []byte(key), Lease: granted.ID})
			require.NoError(t, err)

			for _, call := range []struct{ trace, flags string }{{unsampledTrace, "00"}, {keepAliveTrace, "01"}} {
				stream, err := leases.LeaseKeepAlive(traced(bounded(t), call.trace, call.flags))
				require.NoError(t, err)
				require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: granted.ID}))
				_, err = stream.Recv()
				require.NoError(t, err)
			}
			collector.until(bounded(t), t, keepAliveTrace, lacksKeepAlive)
			require.Empty(t, collector.of(unsampledTrace), "the client decided not to sample")

			other, err := leases.LeaseGrant(bounded(t), &pb.LeaseGrantRequest{TTL: 60})
			require.NoError(t, err)
			_, err = leases.LeaseRevoke(traced(bounded(t), revokeTrace, "01"), &pb.LeaseRevokeRequest{ID: other.ID})
			require.NoError(t, err)
			collector.until(bounded(t), t, revokeTrace, lacksRevoke)

			trace := collector.traceOf(bounded(t), t, "lease-service", "expire leases")
			spans := collector.until(bounded(t), t, trace, lacksExpiry)
			t.Logf("\n%s", show(spans))
		})
	}
}

// below finds a span of a part and a name under another.
func below(spans []span, part, name, up string) (span, bool) {
	i := slices.IndexFunc(spans, func(s span) bool { return s.part() == part && s.name == name && s.up == up })
	if i < 0 {
		return span{}, false
	}
	return spans[i], true
}

func lacksKeepAlive(spans []span) string {
	call, ok := below(spans, "proxy", "etcdserverpb.Lease/LeaseKeepAlive", clientSpan)
	if !ok {
		return "no span of the keepalive at the proxy"
	}
	if owner, ok := below(spans, "lease-service", "keepalive", call.id); !ok || owner.kind != tracev1.Span_SPAN_KIND_SERVER {
		return "no server span of the owner below the proxy's"
	}
	return ""
}

func lacksRevoke(spans []span) string {
	call, ok := below(spans, "proxy", "etcdserverpb.Lease/LeaseRevoke", clientSpan)
	if !ok {
		return "no span of the revoke at the proxy"
	}
	if _, ok := below(spans, "lease-service", "stop keepalives", call.id); !ok {
		return "no span of the owner that stops below the proxy's"
	}
	write, ok := below(spans, "consensus-node", "holdfast.consensus/propose", call.id)
	if !ok {
		return "no span of the node below the proxy's"
	}
	if _, ok := below(spans, "consensus-node", "publish holdfast.changes", write.id); !ok {
		return "the change of the lease table is published outside of the trace"
	}
	return ""
}

// lacksExpiry says what the trace of an expiry lacks, whose root is the owner's.
func lacksExpiry(spans []span) string {
	root, ok := below(spans, "lease-service", "expire leases", "")
	if !ok {
		return "no root"
	}
	expiry, ok := below(spans, "consensus-node", "holdfast.consensus/expire", root.id)
	if !ok {
		return "no span of the node below the owner's"
	}
	if _, ok := below(spans, "consensus-node", "publish holdfast.changes", expiry.id); !ok {
		return "the revisions are published outside of the trace"
	}
	if !slices.ContainsFunc(spans, func(s span) bool { return s.part() == "watch-hub" }) {
		return "no span of the watch-hub"
	}
	if !slices.ContainsFunc(spans, func(s span) bool { return s.part() == "proxy" && slices.Contains(s.links, expiry.id) }) {
		return "no delivery that is linked to the expiry"
	}
	return ""
}

// traceOf waits for a span and gives its trace.
func (r *receiver) traceOf(ctx context.Context, t *testing.T, part, name string) string {
	t.Helper()
	for {
		r.mu.Lock()
		i := slices.IndexFunc(r.spans, func(s span) bool { return s.part() == part && s.name == name })
		changed := r.changed
		if i >= 0 {
			defer r.mu.Unlock()
			return r.spans[i].trace
		}
		r.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(timeout):
			t.Fatalf("no span %s of %s", name, part)
		case <-ctx.Done():
			t.Fatalf("no span %s of %s", name, part)
		}
	}
}
