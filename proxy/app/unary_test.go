package app_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/app"
)

func TestCallsPassThrough(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(3)
		r.ready()
		kv := pb.NewKVClient(r.client)
		ctx := t.Context()
		put, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
		require.NoError(t, err)
		require.EqualValues(t, 2, put.Header.Revision)

		_, err = kv.Put(ctx, &pb.PutRequest{})
		require.Equal(t, rpctypes.ErrGRPCEmptyKey.Error(), err.Error(), "the node's word, not sent again")

		// A serializable read goes to any node, at or after what the connection has seen.
		got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		require.NoError(t, err)
		require.EqualValues(t, 2, got.Count, "min_revision, echoed")
		got, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})
		require.NoError(t, err)
		require.Zero(t, got.Count)

		_, err = pb.NewMaintenanceClient(r.client).HashKV(ctx, &pb.HashKVRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err), "the node decides")
		_, err = pb.NewAuthClient(r.client).AuthStatus(ctx, &pb.AuthStatusRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err))

		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				for j := range 10 {
					_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d-%d", i, j)})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 2+640, r.world.revision)
	})
}

func TestLargeRequests(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.RequestBytesMax = 1 << 20
		r.addNodes(1)
		r.ready()
		kv := pb.NewKVClient(r.client)
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 1<<20+400<<10)})
		require.NoError(t, err, "the node refuses it in etcd's words; the overhead passes here")
		_, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 2<<20)})
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
	})
}

// What was certainly not proposed goes to the leader that the refusing node names.
func TestRefusedCallsFollowTheLeader(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(3)
		r.ready()
		r.nodes[0].on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
			return &consensusv1.Answer{
				Code: uint32(codes.FailedPrecondition), Message: "etcdserver: not leader", NotProposed: true, Leader: 3,
			}, true
		})
		put, err := pb.NewKVClient(r.client).Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		require.NoError(t, err)
		require.EqualValues(t, 3, put.Header.MemberId)
	})
}

// A broken stream leaves a write unknown: it is not sent again. A read is.
func TestBrokenStream(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(3)
		r.ready()
		kv := pb.NewKVClient(r.client)
		arrived := make(chan consensusv1.Method, 16)
		r.nodes[0].on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
			arrived <- call.GetMethod()
			return nil, true
		})
		putErr, rangeErr := make(chan error, 1), make(chan error, 1)
		go func() {
			_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
			putErr <- err
		}()
		<-arrived
		go func() {
			_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")})
			rangeErr <- err
		}()
		<-arrived
		r.nodes[0].on(nil)
		r.nodes[0].cutStreams()
		require.Equal(t, rpctypes.ErrGRPCTimeoutDueToLeaderFail.Error(), (<-putErr).Error())
		require.NoError(t, <-rangeErr)
		require.Equal(t, []string{"n1 RANGE"}, r.world.notes(), "the write reached the tier once, before the cut")
	})
}

func TestNoLeader(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.ElectionMs = 100
		r.addNodes(1)
		r.ready()
		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 0, 3 })
		kv := pb.NewKVClient(r.client)
		demanding := metadata.AppendToOutgoingContext(t.Context(), rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader)
		require.Eventually(t, func() bool {
			_, err := kv.Put(demanding, &pb.PutRequest{Key: []byte("a")})
			return err != nil && err.Error() == rpctypes.ErrGRPCNoLeader.Error()
		}, 5*time.Second, 10*time.Millisecond)
		_, err := kv.Range(demanding, &pb.RangeRequest{Key: []byte("a"), Serializable: true})
		require.NoError(t, err, "serializable reads need no leader")

		watch, err := pb.NewWatchClient(r.client).Watch(demanding)
		require.NoError(t, err)
		_, err = watch.Recv()
		require.Equal(t, rpctypes.ErrGRPCNoLeader.Error(), err.Error())

		// Without that wish the call waits, and goes through once there is a leader.
		done := make(chan error, 1)
		go func() {
			_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
			done <- err
		}()
		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 1, 4 })
		require.NoError(t, <-done)

		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 0, 5 })
		require.Eventually(t, func() bool {
			_, err := kv.Put(short, &pb.PutRequest{Key: []byte("a")})
			return status.Code(err) == codes.DeadlineExceeded
		}, 5*time.Second, 10*time.Millisecond)
	})
}

func TestTraceContextReachesTheCall(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.tracers = &recorder{} // passes the caller's context on
		r.addNodes(1)
		r.ready()
		spans := make(chan []byte, 2)
		r.nodes[0].on(func(call *consensusv1.Call) (*consensusv1.Answer, bool) {
			spans <- call.GetSpanContext()
			return nil, false
		})
		kv := pb.NewKVClient(r.client)
		traced := metadata.AppendToOutgoingContext(t.Context(),
			"traceparent", "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-01")
		_, err := kv.Put(traced, &pb.PutRequest{Key: []byte("a")})
		require.NoError(t, err)
		require.Equal(t, "0102030405060708090a0b0c0d0e0f10111213141516171801", fmt.Sprintf("%x", <-spans))
		_, err = kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		require.NoError(t, err)
		require.Empty(t, <-spans, "unsampled: nothing to carry")
	})
}

func TestHTTPAndHealth(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.addNodes(1)
		r.ready()
		get := func(path string) (int, string) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.proxy.Addresses()[0].String()+path, nil)
			require.NoError(t, err)
			transport := &http.Transport{DisableKeepAlives: true}
			response, err := transport.RoundTrip(request)
			require.NoError(t, err)
			defer func() { require.NoError(t, response.Body.Close()) }()
			body, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			return response.StatusCode, string(body)
		}
		code, body := get("/version")
		require.Equal(t, http.StatusOK, code)
		require.JSONEq(t, `{"etcdserver":"3.7.0","etcdcluster":"3.7.0","storage":"3.7.0"}`, body)
		for _, path := range []string{"/health", "/health?serializable=true"} {
			code, body = get(path)
			require.Equal(t, http.StatusOK, code)
			require.JSONEq(t, `{"health":"true","reason":""}`, body)
		}
		require.Eventually(t, func() bool {
			check, err := healthpb.NewHealthClient(r.client).Check(t.Context(), &healthpb.HealthCheckRequest{})
			return err == nil && check.GetStatus() == healthpb.HealthCheckResponse_SERVING
		}, 5*time.Second, 5*time.Millisecond)

		r.world.update(func(t *consensusv1.Topology) { t.Leader, t.Term = 0, 3 })
		require.Eventually(t, func() bool {
			code, body = get("/health")
			return code == http.StatusServiceUnavailable
		}, 5*time.Second, 10*time.Millisecond)
		require.JSONEq(t, `{"health":"false","reason":"RAFT NO LEADER"}`, body)
		code, _ = get("/health?serializable=true")
		require.Equal(t, http.StatusOK, code)
		require.Eventually(t, func() bool {
			check, err := healthpb.NewHealthClient(r.client).Check(t.Context(), &healthpb.HealthCheckRequest{})
			return err == nil && check.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
		}, 5*time.Second, 5*time.Millisecond)
		_, body = get("/metrics")
		require.Contains(t, body, `grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 0`)
		require.Contains(t, body, "etcd_server_has_leader 0")
	})
}
