package catchup

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append([]string{"holdfast"}, framework.SplitPrograms()...)...))
}

// patience bounds what a test waits for, on a machine that may be busy with others.
const patience = 90 * time.Second

// system is a cluster whose members keep short logs.
type system struct {
	*framework.Cluster
	nodes []string
}

// shortLogs are the flags of a member whose log reaches back a hundred entries or so.
func shortLogs(more ...string) []string {
	return append([]string{"--snapshot-count", "100", "--snapshot-catchup-entries", "50"}, more...)
}

func standalone(t *testing.T, flags ...string) *system {
	t.Helper()
	c := framework.StandaloneCluster(t, framework.Options{Args: flags})
	return &system{Cluster: c, nodes: []string{"s1", "s2", "s3"}}
}

func split(t *testing.T, flags ...string) *system {
	t.Helper()
	nodes, extra := []string{"n1", "n2", "n3"}, map[string][]string{}
	for _, name := range nodes {
		extra[name] = flags
	}
	return &system{Cluster: framework.Split(t, framework.Options{Extra: extra}), nodes: nodes}
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// ask calls one node, on the port where proxies call it.
func ask[T any, M interface {
	*T
	proto.Message
}](ctx context.Context, t *testing.T, s *system, name string, method consensusv1.Method, request proto.Message,
) (M, error) {
	t.Helper()
	conn := framework.Dial(t, fmt.Sprintf("127.0.0.1:%d", s.Ports[name].Peer))
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	if err != nil {
		return nil, err
	}
	data, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	batch := &consensusv1.CallBatch{
		Hello: &consensusv1.Hello{Version: 1, Name: t.Name()},
		Calls: []*consensusv1.Call{{Id: 1, Method: method, Request: data}},
	}
	if err := stream.Send(batch); err != nil {
		return nil, err
	}
	for {
		answers, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, answer := range answers.GetAnswers() {
			if answer.GetCode() != 0 {
				return nil, fmt.Errorf("%s: %s", name, answer.GetMessage())
			}
			m := M(new(T))
			return m, proto.Unmarshal(answer.GetResponse(), m)
		}
	}
}

func (s *system) status(ctx context.Context, t *testing.T, name string) (*pb.StatusResponse, error) {
	t.Helper()
	return ask[pb.StatusResponse](ctx, t, s, name, consensusv1.Method_METHOD_STATUS, &pb.StatusRequest{})
}

// leader waits until one of the nodes that run leads, and the others that run follow it.
func (s *system) leader(t *testing.T) string {
	t.Helper()
	var leader string
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		leads, known := map[uint64]string{}, map[uint64]bool{}
		for _, name := range s.nodes {
			if !slices.Contains(s.Running(), name) {
				continue
			}
			st, err := s.status(t.Context(), t, name)
			if !assert.NoError(c, err) {
				return
			}
			leads[st.GetHeader().GetMemberId()] = name
			known[st.GetLeader()] = true
		}
		if assert.Len(c, known, 1) {
			for id := range known {
				leader = leads[id]
			}
		}
		assert.NotEmpty(c, leader)
	}, patience, 50*time.Millisecond)
	return leader
}

func (s *system) follower(t *testing.T) string {
	t.Helper()
	leader := s.leader(t)
	for _, name := range slices.Backward(s.nodes) {
		if name != leader {
			return name
		}
	}
	return ""
}

// endpoint is where clients reach the system through a node, as far as that is a thing of its own: standalone.
func (s *system) endpoint(name string) string {
	if i := slices.Index(s.nodes, name); len(s.Endpoints()) == len(s.nodes) {
		return s.Endpoints()[i]
	}
	return s.Endpoints()[0]
}

// others are the endpoints that do not go away with a node.
func (s *system) others(name string) []string {
	if len(s.Endpoints()) != len(s.nodes) {
		return s.Endpoints()
	}
	return slices.DeleteFunc(s.Endpoints(), func(e string) bool { return e == s.endpoint(name) })
}

// agree waits until every node holds the same: keys up to the revision, compact revision, and leases.
func (s *system) agree(t *testing.T, revision int64) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		hashes, leases := map[string]bool{}, map[string]bool{}
		for _, name := range s.nodes {
			h, err := ask[pb.HashKVResponse](t.Context(), t, s, name, consensusv1.Method_METHOD_HASH_KV, &pb.HashKVRequest{Revision: revision})
			if !assert.NoError(c, err) {
				return
			}
			hashes[fmt.Sprintf("%08x at %d, compacted %d", h.GetHash(), h.GetHashRevision(), h.GetCompactRevision())] = true
			conn := framework.Dial(t, fmt.Sprintf("127.0.0.1:%d", s.Ports[name].Peer))
			table, err := consensusv1.NewConsensusClient(conn).LeaseTable(t.Context(), &consensusv1.LeaseTableRequest{})
			_ = conn.Close()
			if !assert.NoError(c, err) {
				return
			}
			leases[fmt.Sprint(table.GetSequence(), table.GetLeases())] = true
		}
		assert.Len(c, hashes, 1, "%v", hashes)
		assert.Len(c, leases, 1, "%v", leases)
	}, patience, 100*time.Millisecond)
}

// snapDir is where a node keeps its database and the images that it receives.
func (s *system) snapDir(name string) string { return filepath.Join(s.Data, name, "member", "snap") }

// images are the files of images that are being received, or were not installed yet.
func (s *system) images(t *testing.T, name string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.snapDir(name), "incoming-*"))
	require.NoError(t, err)
	return names
}

// installs counts the snapshots that a node said it had installed.
func (s *system) installs(t *testing.T, name string) (count int) {
	t.Helper()
	for line := range strings.Lines(s.Output(t)) {
		if strings.HasPrefix(line, name+" | ") && strings.Contains(line, "snapshot installed") {
			count++
		}
	}
	return count
}

// peakBytes is the most memory that a process has held.
func (s *system) peakBytes(t *testing.T, name string) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID(t, name)))
	require.NoError(t, err)
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}

// watcher sees everything from a revision on with one watch, and notes it in the order in which it came.
type watcher struct {
	mu   sync.Mutex
	seen []string
	last int64
	err  error
}

// watch begins with the first revision and ends with the test.
func watch(t *testing.T, client *clientv3.Client) *watcher {
	t.Helper()
	w := &watcher{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for r := range client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(1)) {
			w.mu.Lock()
			for _, e := range r.Events {
				w.seen = append(w.seen, fmt.Sprintf("%d %v %s", e.Kv.ModRevision, e.Type, e.Kv.Key))
				w.last = e.Kv.ModRevision
			}
			if r.Err() != nil {
				w.err = r.Err()
			}
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// upTo waits until the watcher has seen the revision and gives what it saw until then.
func (w *watcher) upTo(t *testing.T, revision int64) []string {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		w.mu.Lock()
		defer w.mu.Unlock()
		assert.NoError(c, w.err)
		assert.GreaterOrEqual(c, w.last, revision)
	}, patience, 20*time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}
