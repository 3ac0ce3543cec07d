package e2e

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

const (
	// heavyKeys are what one request deletes, and others read: each of these takes as long as many keepalives.
	heavyKeys = 100_000
	perTxn    = 100
	// keptMeanwhile is how many keepalives, one after the other, are answered in the time of one such request at least. Behind it none would
	// be but those that came to the node before it.
	keptMeanwhile = 10
)

// TestKeepAlivesBesideSlowRequests has keepalives answered while a request is being applied, and reads of a large range are going on.
func TestKeepAlivesBesideSlowRequests(t *testing.T) {
	for _, runtime := range framework.Runtimes() {
		if runtime.Oracle || *runtimeFlag != "" && *runtimeFlag != runtime.Name {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			c := runtime.Start(t, framework.Options{})
			s := &system{Cluster: c, client: c.Client(t)}
			lease := grant(t, s, longTTL)
			stream, err := pb.NewLeaseClient(s.Conn(t, s.Endpoints()[0])).LeaseKeepAlive(t.Context())
			require.NoError(t, err)
			keep := func() {
				require.NoError(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease)}))
				answer, err := stream.Recv()
				require.NoError(t, err)
				require.EqualValues(t, longTTL, answer.TTL)
			}
			// during counts the keepalives that are sent and answered while a call is under way.
			during := func(call func() error) (kept int) {
				keep()
				var over atomic.Bool
				done := make(chan error, 1)
				go func() {
					defer over.Store(true)
					done <- call()
				}()
				for !over.Load() {
					keep()
					kept++
				}
				require.NoError(t, <-done)
				t.Logf("%d keepalives meanwhile", kept)
				return kept
			}
			loadHeavy(t, s)
			require.GreaterOrEqual(t, during(func() error {
				_, err := s.client.Get(t.Context(), "heavy/", clientv3.WithPrefix())
				return err
			}), keptMeanwhile, "beside a large read")
			require.GreaterOrEqual(t, during(func() error {
				_, err := s.client.Delete(t.Context(), "heavy/", clientv3.WithPrefix())
				return err
			}), keptMeanwhile, "beside a request that takes long to apply")
		})
	}
}

func loadHeavy(t *testing.T, s *system) {
	t.Helper()
	value := string(make([]byte, 100))
	var writers sync.WaitGroup
	var next atomic.Int64
	for range 20 {
		writers.Go(func() {
			for at := next.Add(perTxn); at <= heavyKeys && !t.Failed(); at = next.Add(perTxn) {
				puts := make([]clientv3.Op, perTxn)
				for i := range puts {
					puts[i] = clientv3.OpPut(fmt.Sprintf("heavy/%07d", int(at)-i), value)
				}
				if _, err := s.client.Txn(t.Context()).Then(puts...).Commit(); err != nil {
					t.Errorf("load: %v", err)
				}
			}
		})
	}
	writers.Wait()
	require.False(t, t.Failed())
}
