package observe

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// named is a metric that etcd's dashboard or alert rules name, with the labels that their expressions select or add up by.
type named struct {
	name   string
	labels []string
	// edge: it is about client calls; the others are about a member.
	edge bool
	// still: it does not move by itself.
	still bool
}

// dashboardAndAlerts are all of them: those of contrib/mixin as of etcd 3.7, for Grafana 7 and later.
func dashboardAndAlerts() []named {
	call := []string{"grpc_type", "grpc_service", "grpc_method"}
	return []named{
		{name: "etcd_disk_backend_commit_duration_seconds"},
		{name: "etcd_disk_wal_fsync_duration_seconds"},
		{name: "etcd_mvcc_db_total_size_in_bytes"},
		{name: "etcd_mvcc_db_total_size_in_use_in_bytes"},
		{name: "etcd_network_client_grpc_received_bytes_total", edge: true},
		{name: "etcd_network_client_grpc_sent_bytes_total", edge: true},
		{name: "etcd_network_peer_received_bytes_total", labels: []string{"From"}},
		{name: "etcd_network_peer_round_trip_time_seconds", labels: []string{"To"}},
		{name: "etcd_network_peer_sent_bytes_total", labels: []string{"To"}},
		{name: "etcd_network_peer_sent_failures_total", labels: []string{"To"}},
		{name: "etcd_server_has_leader"},
		{name: "etcd_server_leader_changes_seen_total"},
		{name: "etcd_server_proposals_applied_total"},
		{name: "etcd_server_proposals_committed_total"},
		{name: "etcd_server_proposals_failed_total"},
		{name: "etcd_server_proposals_pending"},
		{name: "etcd_server_quota_backend_bytes", still: true},
		{name: "grpc_server_handled_total", labels: append(slices.Clone(call), "grpc_code"), edge: true},
		{name: "grpc_server_handling_seconds", labels: call, edge: true},
		{name: "grpc_server_started_total", labels: call, edge: true},
		{name: "process_resident_memory_bytes"},
	}
}

// further are those of etcd's other metrics that take a cluster to move.
func further() []named {
	both, to, from := []string{"Local", "Remote"}, []string{"To"}, []string{"From"}
	return []named{
		{name: "etcd_network_active_peers", labels: both},
		{name: "etcd_network_disconnected_peers_total", labels: both},
		{name: "etcd_network_snapshot_send_success", labels: to},
		{name: "etcd_network_snapshot_send_inflights_total", labels: to, still: true},
		{name: "etcd_network_snapshot_send_total_duration_seconds", labels: to},
		{name: "etcd_network_snapshot_receive_success", labels: from},
		{name: "etcd_network_snapshot_receive_inflights_total", labels: from, still: true},
		{name: "etcd_network_snapshot_receive_total_duration_seconds", labels: from},
		{name: "etcd_snap_db_fsync_duration_seconds"},
		{name: "etcd_snap_db_save_total_duration_seconds"},
		{name: "etcd_server_slow_read_indexes_total"},
		{name: "etcd_server_slow_apply_total"},
		{name: "etcd_server_heartbeat_send_failures_total"},
		{name: "etcd_server_learner_promote_successes", still: true},
	}
}

// Every metric that etcd's dashboard and alert rules name is there, bears the labels that they use, and moves with what it stands for; so do
// those that take a cluster. etcd itself is the first to be asked, so that the test is known to be right.
func TestEtcdsDashboardAndAlerts(t *testing.T) {
	flags := []string{"--snapshot-count", "10", "--snapshot-catchup-entries", "5"}
	extensive := []string{"--metrics", "extensive"}
	for _, run := range []struct {
		name  string
		start func(t *testing.T) *framework.Cluster
	}{
		{"etcd", func(t *testing.T) *framework.Cluster {
			t.Helper()
			return framework.EtcdCluster(t, framework.Options{Args: append(flags, extensive...)})
		}},
		{"standalone-cluster", func(t *testing.T) *framework.Cluster {
			t.Helper()
			return framework.StandaloneCluster(t, framework.Options{Args: append(flags, extensive...)})
		}},
		{"split", func(t *testing.T) *framework.Cluster {
			t.Helper()
			return framework.Split(t, framework.Options{
				Args: extensive, Extra: map[string][]string{"n1": flags, "n2": flags, "n3": flags},
			})
		}},
	} {
		t.Run(run.name, func(t *testing.T) {
			t.Parallel()
			e := &experience{t: t, system: observed(run.start(t)), seen: map[string]*history{}, labels: map[string]map[string]bool{}, lives: map[string]bool{}}
			e.troubles()
			for _, metric := range append(dashboardAndAlerts(), further()...) {
				require.Contains(t, e.labels, metric.name)
				for _, label := range metric.labels {
					assert.Contains(t, e.labels[metric.name], label, metric.name)
				}
				assert.True(t, metric.still || e.moved(metric.name), "%s has not moved", metric.name)
			}
		})
	}
}

// experience is what a system showed while it went through troubles.
type experience struct {
	t *testing.T
	system
	seen   map[string]*history        // of each series of each life of a process
	labels map[string]map[string]bool // of each name
	lives  map[string]bool            // that were looked at before
	again  bool                       // a process was started again
}

type history struct {
	name  string
	last  float64
	moved bool
}

// look takes down what all processes that run show.
func (e *experience) look() {
	e.t.Helper()
	for _, name := range e.Running() {
		url, ok := e.members[name]
		if !ok && slices.Contains(e.edges, localURL(e.Ports[name].Metrics)) {
			url = localURL(e.Ports[name].Metrics)
		}
		if url == "" {
			continue
		}
		life := fmt.Sprintf("%s %d", name, e.PID(e.t, name))
		for name, list := range scrape(e.t, url) {
			for _, s := range list {
				e.note(life, name, s)
			}
		}
		e.lives[life] = true
	}
}

// note takes down one series. One that a process shows later than others was 0 before; so was what a process that was started again had to
// receive at once.
func (e *experience) note(life, name string, s series) {
	if e.labels[name] == nil {
		e.labels[name] = map[string]bool{}
	}
	for label := range s.labels {
		e.labels[name][label] = true
	}
	key := fmt.Sprint(life, name, s.labels)
	h := e.seen[key]
	switch {
	case h == nil:
		received := e.again && (strings.HasPrefix(name, "etcd_snap_db_") || strings.HasPrefix(name, "etcd_network_snapshot_receive_"))
		e.seen[key] = &history{name: name, last: s.value, moved: (e.lives[life] || received) && s.value != 0}
	case h.last != s.value:
		h.last, h.moved = s.value, true
	}
}

func (e *experience) moved(name string) bool {
	for _, h := range e.seen {
		if h.name == name && h.moved {
			return true
		}
	}
	return false
}

// until looks until all names have moved.
func (e *experience) until(names ...string) {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		e.look()
		return !slices.ContainsFunc(names, func(name string) bool { return !e.moved(name) })
	}, patience, pause, "%v", names)
}

// troubles leads the system through what the metrics are for.
func (e *experience) troubles() {
	e.t.Helper()
	e.look()
	e.puts(30)
	e.look()
	leader := e.leader(e.t)
	away := e.others(leader)[0]
	e.Kill(e.t, away, syscall.SIGKILL)
	e.puts(250) // more than the log keeps
	e.until("etcd_network_peer_sent_failures_total", "etcd_network_active_peers", "etcd_network_disconnected_peers_total")
	e.until("etcd_disk_backend_commit_duration_seconds") // what is not in the database stays in the log
	e.puts(30)
	e.again = true
	e.Start(e.t, away)
	e.until("etcd_network_snapshot_send_success", "etcd_network_snapshot_receive_success")
	e.until("etcd_network_peer_round_trip_time_seconds", "etcd_disk_backend_commit_duration_seconds")
	e.stall()
	e.loseQuorum()
}

// puts makes so many writes, and reads, through processes that run.
func (e *experience) puts(n int) {
	e.t.Helper()
	client := e.ClientAt(e.t, e.edge())
	for i := range n {
		require.Eventually(e.t, func() bool {
			_, err := client.Put(e.t.Context(), fmt.Sprintf("k%d", i), "value")
			if err == nil {
				_, err = client.Get(e.t.Context(), "k0")
			}
			return err == nil
		}, patience, pause)
	}
}

// edge is where clients reach a process that runs.
func (e *experience) edge() string {
	for _, name := range e.Running() {
		if ports := e.Ports[name]; ports.Client != 0 && name != "nats" {
			return e.ClientURL(name)
		}
	}
	e.t.Fatal("no edge runs")
	return ""
}

// others are the members that run and do not lead.
func (e *experience) others(leader string) []string {
	var names []string
	for _, name := range e.Running() {
		if e.members[name] != "" && name != leader {
			names = append(names, name)
		}
	}
	return names
}

// stall holds up the leader for less than an election takes, until it says that its heartbeats were late.
func (e *experience) stall() {
	e.t.Helper()
	require.Eventually(e.t, func() bool {
		leader := e.leader(e.t)
		e.Kill(e.t, leader, syscall.SIGSTOP)
		time.Sleep(400 * time.Millisecond) // this is the trouble
		e.Kill(e.t, leader, syscall.SIGCONT)
		e.puts(1)
		e.look()
		return e.moved("etcd_server_heartbeat_send_failures_total")
	}, patience, pause)
}

// loseQuorum kills all members but the leader and makes a write and a read at it, which fail.
func (e *experience) loseQuorum() {
	e.t.Helper()
	leader := e.leader(e.t)
	others := e.others(leader)
	edge := e.edge()
	if _, own := e.members[leader]; own && e.Ports[leader].Client != 0 {
		edge = e.ClientURL(leader)
	}
	conn := e.Conn(e.t, edge)
	kv := pb.NewKVClient(conn)
	_, err := kv.Range(e.t.Context(), &pb.RangeRequest{Key: []byte("k0")}) // connected
	require.NoError(e.t, err)
	for _, name := range others {
		e.Kill(e.t, name, syscall.SIGKILL)
	}
	ctx, cancel := context.WithTimeout(e.t.Context(), patience)
	defer cancel()
	failed := make(chan error, 2)
	go func() {
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k0")})
		failed <- err
	}()
	go func() {
		_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k0")})
		failed <- err
	}()
	e.until("etcd_server_proposals_pending", "etcd_server_has_leader")
	require.Error(e.t, <-failed)
	require.Error(e.t, <-failed)
	e.until("etcd_server_proposals_failed_total", "etcd_server_slow_read_indexes_total", "etcd_server_slow_apply_total")
	e.StartAll(e.t, others...)
	e.until("etcd_server_leader_changes_seen_total")
}
