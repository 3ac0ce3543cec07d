package app

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/services/version"
)

// register shows the metrics of a node that is built.
func (n *Node) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	collectors := n.metrics.shown
	gauge := func(name, help string, value func() float64) {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() uint64) {
		collectors = append(collectors, prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value()) }))
	}
	fact := func(name, help, label, value string) {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: name, Help: help, ConstLabels: prometheus.Labels{label: value},
		}, func() float64 { return 1 }))
	}
	n.raftMetrics(gauge)
	n.failureMetrics(counter)
	n.storeMetrics(gauge)
	fact("etcd_server_version", "Which version is running. 1 for 'server_version' label with current version.", "server_version", version.API)
	fact("etcd_cluster_version", "The version that all members speak.", "cluster_version", strings.TrimSuffix(version.ClusterAPI, ".0"))
	fact("etcd_server_go_version", "Which Go version is running.", "server_go_version", runtime.Version())
	fact("etcd_server_id", "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
		"server_id", fmt.Sprintf("%x", n.memberID))
	for _, c := range append(collectors, facts{n}) {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("app: a metric of the node: %w", err)
		}
	}
	return n.metrics.traffic.Register(registerer)
}

func (n *Node) failureMetrics(counter func(name, help string, value func() uint64)) {
	counter("etcd_server_proposals_failed_total", "Writes that raft refused, lost, or said nothing of in time.", n.packer.Failed)
	counter("etcd_server_slow_read_indexes_total", "Questions for a read index without an answer after half an election timeout.",
		func() uint64 { return n.raft.Counts().SlowReads })
	counter("etcd_server_read_indexes_failed_total", "Batches of reads that ran out of time before there was a read index.",
		func() uint64 { return n.raft.Counts().FailedReads })
	counter("etcd_server_heartbeat_send_failures_total", "Heartbeats that this member as leader sent late: likely its disk or processor is overloaded.",
		func() uint64 { return n.raft.Counts().LateHeartbeats })
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func (n *Node) raftMetrics(gauge func(name, help string, value func() float64)) {
	status := func(of func(raftnode.Status) float64) func() float64 {
		return func() float64 { return of(n.raft.Status()) }
	}
	gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not.",
		status(func(s raftnode.Status) float64 { return truth(s.Leader != 0) }))
	gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise.",
		status(func(s raftnode.Status) float64 { return truth(s.Leader == n.memberID) }))
	gauge("etcd_server_is_learner", "Whether or not this member is a learner. 1 if is, 0 otherwise.",
		status(func(s raftnode.Status) float64 { return truth(s.Learner) }))
	gauge("etcd_server_proposals_committed_total", "The total number of consensus proposals committed.",
		status(func(s raftnode.Status) float64 { return float64(s.Commit) }))
	gauge("etcd_server_proposals_applied_total", "The total number of consensus proposals applied.",
		status(func(s raftnode.Status) float64 { return float64(s.Applied) }))
	gauge("holdfast_raft_term", "The term of raft.", status(func(s raftnode.Status) float64 { return float64(s.Term) }))
	gauge("etcd_server_proposals_pending", "The current number of pending proposals to commit.",
		func() float64 { return float64(n.packer.Pending()) })
	gauge("holdfast_raft_log_begins_index", "The first index that the log still holds.",
		func() float64 { return float64(n.raft.LogBegins()) })
}

func (n *Node) storeMetrics(gauge func(name, help string, value func() float64)) {
	store := n.disk.store
	gauge("etcd_mvcc_db_total_size_in_bytes", "Total size of the underlying database physically allocated in bytes.",
		func() float64 { return float64(store.Size()) })
	gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Total size of the underlying database logically in use in bytes.",
		func() float64 { return float64(store.SizeInUse()) })
	gauge("etcd_mvcc_db_open_read_transactions", "Transactions of the database that are open for reading.",
		func() float64 { return float64(store.OpenReads()) })
	gauge("etcd_disk_defrag_inflight", "1 while the database is defragmented.", func() float64 { return truth(store.Defragmenting()) })
	gauge("etcd_server_quota_backend_bytes", "Current backend storage quota size in bytes.",
		func() float64 { return float64(n.space.QuotaBytes) })
	gauge("holdfast_store_pending_bytes", "Changes that are applied and wait for their commit to the database.",
		func() float64 { return float64(store.Pending()) })
	gauge("etcd_debugging_mvcc_keys_total", "Total number of keys.", n.viewed(func(v *viewNumbers) int64 { return v.keys }))
	gauge("etcd_debugging_mvcc_current_revision", "The current revision of store.",
		n.viewed(func(v *viewNumbers) int64 { return v.revision }))
	gauge("etcd_debugging_mvcc_compact_revision", "The revision of the last compaction in store.",
		n.viewed(func(v *viewNumbers) int64 { return v.compact }))
	gauge("holdfast_lease_table_leases", "Leases that exist.", n.viewed(func(v *viewNumbers) int64 { return v.leases }))
}

// viewNumbers are what the newest view says of itself.
type viewNumbers struct{ keys, revision, compact, leases int64 }

func (n *Node) viewed(of func(*viewNumbers) int64) func() float64 {
	return func() float64 {
		view, err := n.machine.Current()
		if err != nil { // the node ends
			return 0
		}
		defer view.Release()
		return float64(of(&viewNumbers{
			keys: view.KV.Keys(), revision: view.KV.Revision(), compact: max(0, view.KV.CompactRevision()), leases: int64(view.Leases.Len()),
		}))
	}
}

// facts are what has labels that only the moment knows.
type facts struct{ node *Node }

// peerPatience bounds the wait for the loop of raft, which may be stuck behind a disk.
const peerPatience = 200 * time.Millisecond

func (f facts) lag() *prometheus.Desc {
	return prometheus.NewDesc("holdfast_raft_peer_lag_entries",
		"Entries of the leader's log that a member is not known to have. The leader alone tells.", []string{"peer"}, nil)
}

func (f facts) alarms() *prometheus.Desc {
	return prometheus.NewDesc("etcd_debugging_server_alarms", "1 for each alarm that is raised.", []string{"server_id", "alarm_type"}, nil)
}

func (f facts) gates() *prometheus.Desc {
	return prometheus.NewDesc("etcd_server_feature_enabled", "Whether a feature gate is open: 1 if so.", []string{"name", "stage"}, nil)
}

// Describe implements prometheus.Collector.
func (f facts) Describe(out chan<- *prometheus.Desc) {
	out <- f.lag()
	out <- f.alarms()
	out <- f.gates()
}

// Collect implements prometheus.Collector.
func (f facts) Collect(out chan<- prometheus.Metric) {
	one := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for id, lag := range f.node.lags() {
		one(f.lag(), float64(lag), fmt.Sprintf("%x", id))
	}
	for _, name := range []string{gateCompactHash, gateInitialCheck} {
		one(f.gates(), truth(f.node.cfg.Consistency.Gates.Enabled(name)), name, "ALPHA")
	}
	view, err := f.node.machine.Current()
	if err != nil { // the node ends
		return
	}
	defer view.Release()
	for _, alarm := range view.Alarms {
		one(f.alarms(), 1, fmt.Sprintf("%x", alarm.Member), alarm.Type.String())
	}
}

// lags are how many entries each other member is behind, on the leader.
func (n *Node) lags() map[uint64]uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	peers, err := n.raft.Peers(ctx)
	if err != nil {
		return nil
	}
	lags, last := map[uint64]uint64{}, peers[n.memberID].Match
	for id, peer := range peers {
		if id != n.memberID {
			lags[id] = max(last, peer.Match) - peer.Match
		}
	}
	return lags
}

// countLeaders counts the changes of leader until the context ends.
func (n *Node) countLeaders(ctx context.Context) error {
	var last raftnode.Leadership
	for {
		now, changed := n.raft.Leadership()
		if now.Leader != 0 && (now.Leader != last.Leader || now.Term != last.Term) { // the same one again is a change too
			n.metrics.changes.Inc()
		}
		last = now
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
