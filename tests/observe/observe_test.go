// Package observe holds that what operators read is there: the metrics that etcd's dashboards and alert rules rest on, with etcd's
// meaning, and every metric that a dashboard or a rule of ours names.
package observe

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd")...))
}

// scrape reads a process's metrics: the sum of each over its labels, a histogram's by its count.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	code, body := framework.Get(t, url+"/metrics")
	require.Equal(t, 200, code)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	require.NoError(t, err)
	values := map[string]float64{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			values[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue() +
				float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

func localURL(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

// sameMeaning are metrics of a member that etcd has too, with what must be so after the same few writes on both.
func sameMeaning() []string {
	return []string{
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_leader_changes_seen_total",
		"etcd_server_proposals_pending", "etcd_server_quota_backend_bytes", "etcd_server_version", "etcd_server_id",
		"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision", "etcd_debugging_mvcc_compact_revision",
	}
}

// alsoThere are those whose values depend on the machine, or on how a system is built.
func alsoThere() []string {
	return []string{
		"etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "etcd_disk_wal_fsync_duration_seconds",
		"etcd_disk_backend_commit_duration_seconds", "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
		"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "go_goroutines",
	}
}

// The same requests give a member's metrics the same values as etcd's, where they mean the same.
func TestEtcdsNames(t *testing.T) {
	load := func(c *framework.Cluster) map[string]float64 {
		kv := pb.NewKVClient(c.Conn(t, c.Endpoints()[0]))
		for i := range 5 {
			_, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%3)})
			require.NoError(t, err)
		}
		_, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 3, Physical: true})
		require.NoError(t, err)
		return scrape(t, c.Endpoints()[0])
	}
	want := load(framework.Etcd(t, framework.Options{}))
	got := load(framework.Standalone(t, framework.Options{}))
	for _, name := range sameMeaning() {
		require.Contains(t, want, name)
		require.Contains(t, got, name)
		require.InDelta(t, want[name], got[name], 0, name)
	}
	for _, name := range alsoThere() {
		require.Contains(t, want, name)
		require.Contains(t, got, name)
		require.Positive(t, got[name], name)
	}
}

// words finds metrics in expressions: those of other programs are not ours to check.
var words = regexp.MustCompile(`\b(?:etcd|holdfast|grpc|process)_[a-z0-9_]+\b`) //nolint:gochecknoglobals // compiled once

// Every metric that a dashboard or a rule names is one that a process shows.
func TestDashboardsAndRulesNameWhatIsThere(t *testing.T) {
	c := framework.Split(t, framework.Options{Args: []string{"--metrics", "extensive"}})
	conn := c.Conn(t, c.Endpoints()[0])
	_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("k")})
	require.NoError(t, err)
	lease, err := pb.NewLeaseClient(conn).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
	require.NoError(t, err)
	keep, err := pb.NewLeaseClient(conn).LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	require.NoError(t, keep.Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}))
	_, err = keep.Recv()
	require.NoError(t, err)
	shown := map[string]bool{"holdfast_watch_gaps_total": true} // shown once there is a gap
	for _, ports := range c.Ports {
		if ports.Metrics == 0 || ports.Metrics == c.Ports["nats"].Metrics {
			continue
		}
		for name := range scrape(t, localURL(ports.Metrics)) {
			shown[name] = true
		}
	}
	root, err := framework.Root()
	require.NoError(t, err)
	for _, file := range []string{"deploy/grafana/dashboards/holdfast.json", "deploy/prometheus/alerts.yml"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		require.NoError(t, err)
		named := words.FindAllString(string(text), -1)
		require.NotEmpty(t, named)
		for _, name := range named {
			switch name {
			case "grpc_service", "grpc_method", "grpc_code", "grpc_type": // labels
				continue
			}
			require.True(t, shown[strings.TrimSuffix(name, "_bucket")], "%s names %s, which no process shows", file, name)
		}
	}
}
