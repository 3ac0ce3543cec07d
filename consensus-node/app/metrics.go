package app

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/services/version"
)

// metrics are the node's own, under etcd's names where they mean what etcd's do, so that etcd's dashboards and alert rules work. What
// can be read when somebody asks is read then and costs nothing until; the rest is observed where it happens.
type metrics struct {
	walSync, commit prometheus.Histogram
	changes         prometheus.Counter
}

// syncBuckets are etcd's for the disk: 1 ms to 8 s.
func syncBuckets() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 14) }

func newMetrics() *metrics {
	return &metrics{
		walSync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "etcd_disk_wal_fsync_duration_seconds", Help: "The latency distributions of fsync called by WAL.", Buckets: syncBuckets(),
		}),
		commit: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "etcd_disk_backend_commit_duration_seconds", Help: "The latency distributions of commit called by backend.",
			Buckets: syncBuckets(),
		}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_leader_changes_seen_total", Help: "The number of leader changes seen.",
		}),
	}
}

func (m *metrics) synced(took time.Duration)    { m.walSync.Observe(took.Seconds()) }
func (m *metrics) committed(took time.Duration) { m.commit.Observe(took.Seconds()) }

// register shows the metrics of a node that is built.
func (n *Node) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	collectors := []prometheus.Collector{n.metrics.walSync, n.metrics.commit, n.metrics.changes}
	gauge := func(name, help string, value func() float64) {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	n.raftMetrics(gauge)
	n.storeMetrics(gauge)
	collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_server_version", Help: "Which version is running. 1 for 'server_version' label with current version.",
		ConstLabels: prometheus.Labels{"server_version": version.API},
	}, func() float64 { return 1 }), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "etcd_server_id", Help: "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.",
		ConstLabels: prometheus.Labels{"server_id": fmt.Sprintf("%x", n.memberID)},
	}, func() float64 { return 1 }), peerLag{n})
	for _, c := range collectors {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("app: a metric of the node: %w", err)
		}
	}
	return nil
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

// peerLag tells, on the leader, how far each member is behind.
type peerLag struct{ node *Node }

// peerPatience bounds the wait for the loop of raft, which may be stuck behind a disk.
const peerPatience = 200 * time.Millisecond

func (p peerLag) desc() *prometheus.Desc {
	return prometheus.NewDesc("holdfast_raft_peer_lag_entries",
		"Entries of the leader's log that a member is not known to have. The leader alone tells.", []string{"peer"}, nil)
}

// Describe implements prometheus.Collector.
func (p peerLag) Describe(out chan<- *prometheus.Desc) { out <- p.desc() }

// Collect implements prometheus.Collector.
func (p peerLag) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), peerPatience)
	defer cancel()
	peers, err := p.node.raft.Peers(ctx)
	if err != nil {
		return
	}
	last := peers[p.node.memberID].Match
	for id, peer := range peers {
		if id != p.node.memberID {
			lag := float64(max(last, peer.Match) - peer.Match)
			out <- prometheus.MustNewConstMetric(p.desc(), prometheus.GaugeValue, lag, fmt.Sprintf("%x", id))
		}
	}
}

// countLeaders counts the changes of leader until the context ends.
func (n *Node) countLeaders(ctx context.Context) error {
	var last uint64
	for {
		now, changed := n.raft.Leadership()
		if now.Leader != 0 && now.Leader != last {
			n.metrics.changes.Inc()
			last = now.Leader
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
