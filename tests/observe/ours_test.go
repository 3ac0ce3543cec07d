package observe

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func read(t *testing.T, path string) string {
	t.Helper()
	root, err := framework.Root()
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(text)
}

const (
	dashboardFile = "deploy/grafana/dashboards/holdfast.json"
	alertsFile    = "deploy/prometheus/alerts.yml"
)

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
	shown := map[string]bool{"holdfast_watch_gaps_total": true, "holdfast_watch_backfills_total": true} // shown once there is a gap
	for _, ports := range c.Ports {
		if ports.Metrics == 0 || ports.Metrics == c.Ports["nats"].Metrics {
			continue
		}
		for name := range scrape(t, localURL(ports.Metrics)) {
			shown[name] = true
		}
	}
	for _, file := range []string{dashboardFile, alertsFile} {
		named := words.FindAllString(read(t, file), -1)
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

// The dashboard has what an operator looks for.
func TestDashboardShows(t *testing.T) {
	t.Parallel()
	var dashboard struct {
		Panels []struct {
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(read(t, dashboardFile)), &dashboard))
	var exprs []string
	for i, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			exprs = append(exprs, target.Expr)
		}
		for _, other := range dashboard.Panels[:i] {
			a, b := panel.GridPos, other.GridPos
			apart := a.X+a.W <= b.X || b.X+b.W <= a.X || a.Y+a.H <= b.Y || b.Y+b.H <= a.Y
			require.True(t, apart, "%q lies on %q", panel.Title, other.Title)
		}
	}
	for what, metrics := range map[string][]string{
		"calls and errors": {"grpc_server_started_total", "grpc_server_handled_total"}, "latency": {"grpc_server_handling_seconds_bucket"},
		"leader":         {"etcd_server_is_leader", "etcd_server_has_leader", "etcd_server_leader_changes_seen_total"},
		"raft progress":  {"etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "holdfast_raft_peer_lag_entries"},
		"failures":       {"etcd_server_proposals_failed_total", "etcd_server_read_indexes_failed_total", "etcd_server_heartbeat_send_failures_total"},
		"log and bbolt":  {"etcd_disk_wal_fsync_duration_seconds_bucket", "etcd_disk_backend_commit_duration_seconds_bucket"},
		"database":       {"etcd_mvcc_db_total_size_in_bytes", "etcd_server_quota_backend_bytes"},
		"peer traffic":   {"etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total", "etcd_network_peer_sent_failures_total"},
		"round trips":    {"etcd_network_peer_round_trip_time_seconds_bucket"},
		"client traffic": {"etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total"},
		"watches":        {"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_slow_watcher_total"},
		"watch lag": {
			"holdfast_watch_lag_revisions", "holdfast_watch_lag_seconds", "holdfast_watch_proxy_lag_seconds", "holdfast_watch_window_bytes",
		},
		"bus gaps": {"holdfast_watch_gaps_total", "holdfast_watch_backfills_total"},
		"leases":   {"holdfast_lease_owned", "holdfast_lease_keepalives_total", "holdfast_lease_heartbeat_age_seconds", "holdfast_lease_expired_total"},
	} {
		for _, metric := range metrics {
			require.True(t, slices.ContainsFunc(exprs, func(e string) bool { return strings.Contains(e, metric) }), "%s: %s", what, metric)
		}
	}
}

// In the split system what etcd's dashboard shows of client calls comes from proxies, under the job of the nodes.
func TestCallsAreUnderTheMembersJob(t *testing.T) {
	t.Parallel()
	text := read(t, "deploy/prometheus/prometheus.yml")
	rule := regexp.MustCompile(`source_labels: \[__name__\], regex: (\S+), target_label: job, replacement: holdfast-etcd`).FindStringSubmatch(text)
	require.NotNil(t, rule)
	moved := regexp.MustCompile("^(?:" + rule[1] + ")$")
	for _, metric := range dashboardAndAlerts() {
		require.Equal(t, metric.edge, moved.MatchString(metric.name), metric.name)
	}
}
