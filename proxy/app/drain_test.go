package app_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/proxy/app"
)

// A proxy that is told to end says so to whoever asks for its health, takes no new client, and lets those that it has go on for as long
// as its configuration says.
func TestDrain(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		const patience = 700 * time.Millisecond
		r.config = app.NewConfig()
		r.config.DrainDelay, r.config.DrainTimeout = patience, patience
		r.addNodes(1)
		r.addHub("hub1")
		r.ready()
		watch, err := pb.NewWatchClient(r.client).Watch(t.Context())
		require.NoError(t, err)
		create := func(id int64) {
			require.NoError(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
				CreateRequest: &pb.WatchCreateRequest{Key: []byte("k"), WatchId: id},
			}}))
			response, err := watch.Recv()
			require.NoError(t, err)
			require.True(t, response.GetCreated())
		}
		create(1)
		ask := func(query string) (int, string) {
			recorder := httptest.NewRecorder()
			r.proxy.HTTP(nil).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/health?"+query, http.NoBody))
			return recorder.Code, recorder.Body.String()
		}
		health := func() (int, string) { return ask("serializable=true") }
		for _, query := range []string{"serializable=true", "unhealthy=404"} {
			code, _ := ask(query)
			require.Equal(t, http.StatusOK, code)
		}

		begun := time.Now()
		r.stop()
		require.Eventually(t, func() bool { code, _ := health(); return code == http.StatusServiceUnavailable }, patience/2, time.Millisecond)
		_, body := health()
		require.JSONEq(t, `{"health":"false","reason":"DRAINING"}`, body)
		code, _ := ask("unhealthy=404")
		require.Equal(t, http.StatusNotFound, code)
		// Until the delay is over nothing changes for those who come, and after it those who are there go on.
		_, err = pb.NewKVClient(r.client).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		require.NoError(t, err)
		require.Less(t, time.Since(begun), patience)
		require.Eventually(t, func() bool {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.proxy.Addresses()[0].String())
			if err == nil {
				require.NoError(t, conn.Close())
			}
			return err != nil
		}, 5*time.Second, time.Millisecond)
		require.GreaterOrEqual(t, time.Since(begun), patience)
		create(2)
		_, err = watch.Recv()
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
		require.GreaterOrEqual(t, time.Since(begun), 2*patience)
		_, err = pb.NewKVClient(r.client).Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	})
}

// Clients are asked to connect again now and then; what is under way goes on over the old connection.
func TestConnectionsAge(t *testing.T) {
	eachBinding(t, func(t *testing.T, r *rig) {
		r.config = app.NewConfig()
		r.config.ConnectionAgeMax = 100 * time.Millisecond
		r.addNodes(1)
		r.addHub("hub1")
		r.ready()
		watch, err := pb.NewWatchClient(r.client).Watch(t.Context())
		require.NoError(t, err)
		seen := map[string]bool{}
		kv := pb.NewKVClient(r.client)
		require.Eventually(t, func() bool {
			var by peer.Peer
			_, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")}, grpc.Peer(&by))
			require.NoError(t, err)
			seen[by.LocalAddr.String()] = true
			return len(seen) > 2
		}, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
			CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")},
		}}))
		response, err := watch.Recv()
		require.NoError(t, err)
		require.True(t, response.GetCreated())
	})
}
