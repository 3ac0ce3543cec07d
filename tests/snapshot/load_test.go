package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

const (
	writers   = 4
	pairs     = 8
	snapshots = 6
	// pauseChunks is how many chunks a slow reader takes before it lets writes go by.
	pauseChunks = 3
)

// pair are two keys that are always written together.
func pair(writer, i int) (one, other string) {
	return fmt.Sprintf("one/%d/%d", writer, i), fmt.Sprintf("other/%d/%d", writer, i)
}

// Snapshots that are taken while transactions write pairs of keys, and compactions drop old ones, hold both of a pair or neither,
// however slowly they are read; and what was acknowledged before a snapshot began is in it.
func TestUnderLoad(t *testing.T) {
	for _, runtime := range ours() {
		if runtime.Name == "standalone-cluster" {
			continue // the same as the two others
		}
		t.Run(runtime.Name, func(t *testing.T) {
			c := runtime.Start(t, framework.Options{})
			load := startLoad(t, c)
			type taken struct {
				file  string
				least int64
			}
			var all []taken
			for range snapshots {
				least := load.next(t)
				all = append(all, taken{slowSave(t, c, load), least})
			}
			load.stop(t)
			c.Stop(t)
			for _, s := range all {
				must(t, "etcdutl", "snapshot", "status", s.file)
				require.GreaterOrEqual(t, checkPairs(t, s.file), s.least)
			}
		})
	}
}

// load are writers at work.
type load struct {
	client *clientv3.Client
	stop   func(t *testing.T)

	mu       sync.Mutex
	revision int64 // acknowledged
	told     chan struct{}
}

func startLoad(t *testing.T, c *framework.Cluster) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{client: c.Client(t), told: make(chan struct{})}
	var all sync.WaitGroup
	failed := make(chan error, writers)
	for writer := range writers {
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := l.write(ctx, writer, i); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
			}
		})
	}
	l.stop = func(t *testing.T) {
		t.Helper()
		cancel()
		all.Wait()
		select {
		case err := <-failed:
			require.NoError(t, err)
		default:
		}
	}
	t.Cleanup(cancel)
	return l
}

func (l *load) write(ctx context.Context, writer, i int) error {
	one, other := pair(writer, i%pairs)
	value := fmt.Sprintf("%d %01000d", i, 0)
	r, err := l.client.Txn(ctx).Then(clientv3.OpPut(one, value), clientv3.OpPut(other, value)).Commit()
	if err != nil {
		return err
	}
	if writer == 0 && i%50 == 49 {
		if _, err := l.client.Compact(ctx, r.Header.Revision-10); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.revision = max(l.revision, r.Header.Revision)
	close(l.told)
	l.told = make(chan struct{})
	return nil
}

// next waits for a write and gives the revision that is acknowledged.
func (l *load) next(t *testing.T) int64 {
	t.Helper()
	l.mu.Lock()
	told := l.told
	l.mu.Unlock()
	select {
	case <-told:
	case <-bounded(t).Done():
		t.Fatal("no write is acknowledged")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.revision
}

// slowSave saves a snapshot chunk by chunk, with writes in between.
func slowSave(t *testing.T, c *framework.Cluster, l *load) string {
	t.Helper()
	conn := c.Conn(t, c.Endpoints()[len(c.Endpoints())-1])
	stream, err := pb.NewMaintenanceClient(conn).Snapshot(bounded(t), &pb.SnapshotRequest{})
	require.NoError(t, err)
	var data []byte
	for i := 0; ; i++ {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		data = append(data, m.GetBlob()...)
		if i%pauseChunks == 0 && i < 10*pauseChunks {
			l.next(t)
		}
	}
	database := data[:len(data)-sha256.Size]
	sum := sha256.Sum256(database)
	require.Equal(t, sum[:], data[len(database):])
	file := filepath.Join(t.TempDir(), "saved.db")
	require.NoError(t, os.WriteFile(file, data, 0o600))
	return file
}

// checkPairs restores the file into a standalone and compares the pairs at each revision; it gives the last one.
func checkPairs(t *testing.T, file string) int64 {
	t.Helper()
	c := restored(t, framework.Runtimes()[1], file)
	defer c.Stop(t)
	client := client(t, c, c.Endpoints()[0])
	hash, err := client.HashKV(bounded(t), c.Endpoints()[0], 0)
	require.NoError(t, err)
	last := hash.Header.Revision
	for revision := max(hash.CompactRevision, 1); revision <= last; revision += max(1, (last-hash.CompactRevision)/20) {
		at := func(prefix string) []string {
			r, err := client.Get(bounded(t), prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
			require.NoError(t, err)
			var out []string
			for _, kv := range r.Kvs {
				out = append(out, fmt.Sprintf("%s %.10s %d %d", kv.Key[len(prefix):], kv.Value, kv.ModRevision, kv.Version))
			}
			return out
		}
		require.Equal(t, at("one/"), at("other/"), "revision %d", revision)
	}
	return last
}
