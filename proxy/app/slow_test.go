package app_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/app"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// A client that does not read costs bounded memory: its watch leaves the hub, and loses nothing when it reads on.
func TestSlowClientCatchesUp(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.WatchBufferBytes = 1 << 20
		r.addNodes(1)
		h, _ := r.addHub("h1")
		r.ready()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := pb.NewWatchClient(r.client).Watch(ctx)
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, stream).Created)
		value := strings.Repeat("v", 64<<10)
		const writes = 100
		require.Eventually(t, func() bool { return h.registered() == 1 }, 5*time.Second, time.Millisecond)
		for range writes {
			r.world.put("a", value, nil)
		}
		require.Eventually(t, func() bool { return h.registered() == 0 }, 5*time.Second, time.Millisecond, "off the live path")
		next := int64(2)
		for next < 2+writes {
			response := recv(t, stream)
			require.Less(t, proto.Size(response), 4<<20)
			for _, ev := range response.Events {
				require.Equal(t, next, ev.Kv.ModRevision)
				next++
			}
		}
		require.Eventually(t, func() bool { return h.registered() == 1 }, 5*time.Second, time.Millisecond, "and back")
	})
}

// A node that hangs must not hold up serializable reads that another can answer, nor linearizable ones once it is deposed.
func TestReadsLeaveANodeThatHangs(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(2)
		r.ready()
		arrived := make(chan struct{}, 16)
		r.nodes[0].on(func(*consensusv1.Call) (*consensusv1.Answer, bool) { arrived <- struct{}{}; return nil, true })
		kv := pb.NewKVClient(r.client)
		done := make(chan error, 1)
		go func() {
			response, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
			if err == nil && response.Header.MemberId != 2 {
				t.Error("answered by the hanging node")
			}
			done <- err
		}()
		<-arrived
		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 2, 3 })
		require.NoError(t, <-done)
		_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		require.NoError(t, err)
	})
}

// recorder notes the spans that are started.
type recorder struct {
	embedded.TracerProvider

	mu    sync.Mutex
	spans []started
}

type started struct {
	name   string
	parent trace.SpanContext
	links  []trace.Link
}

func (r *recorder) Tracer(string, ...trace.TracerOption) trace.Tracer { return tracer{recorder: r} }

type tracer struct {
	embedded.Tracer
	*recorder
}

func (t tracer) Start(ctx context.Context, name string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	config := trace.NewSpanStartConfig(options...)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, started{name, trace.SpanContextFromContext(ctx), config.Links()})
	return noop.NewTracerProvider().Tracer("").Start(ctx, name)
}

func TestDeliveriesAreLinkedToTheirWrites(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		tracing := &recorder{}
		r.tracers = tracing
		r.addNodes(1)
		h, _ := r.addHub("h1")
		r.ready()
		stream, err := pb.NewWatchClient(r.client).Watch(t.Context())
		require.NoError(t, err)
		create(t, stream, &pb.WatchCreateRequest{Key: []byte("a")})
		require.True(t, recv(t, stream).Created)
		require.Eventually(t, func() bool { return h.registered() == 1 }, 5*time.Second, time.Millisecond)
		span := []byte("0123456789abcdef01234567\x01")
		r.world.put("a", "unsampled", nil)
		require.Len(t, recv(t, stream).Events, 1)
		r.world.put("a", "sampled", span)
		require.Len(t, recv(t, stream).Events, 1)
		require.NoError(t, stream.CloseSend())
		tracing.mu.Lock()
		defer tracing.mu.Unlock()
		var deliveries []started
		for _, s := range tracing.spans {
			if s.name == "send etcdserverpb.Watch" {
				deliveries = append(deliveries, s)
			}
		}
		require.Len(t, deliveries, 1, "only what carries a sampled write")
		require.Len(t, deliveries[0].links, 1)
		require.Equal(t, telemetry.DecodeSpanContext(span), deliveries[0].links[0].SpanContext)
	})
}
