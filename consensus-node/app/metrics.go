package app

import (
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/transport"
)

// metrics are the node's own, under etcd's names where they mean what etcd's do, so that etcd's dashboards and alert rules work. What
// can be read when somebody asks is read then and costs nothing until; the rest is observed where it happens, each through a histogram or
// counter that was looked up when the node was built. They are the Observer of the node and of its edge.
type metrics struct {
	shown   []prometheus.Collector
	traffic *transport.Metrics

	changes                          prometheus.Counter
	walSync, walWrite                prometheus.Histogram
	walBytes                         prometheus.Gauge
	commit, rebalance, spill, write  prometheus.Histogram
	defragment, image, hash, hashRev prometheus.Histogram
	ranges, puts, deletes, txns      prometheus.Counter
	putBytes                         prometheus.Gauge
	granted, revoked                 prometheus.Counter
	ttl                              prometheus.Histogram
	compactPause, compactTotal       prometheus.Histogram
	compactLast                      prometheus.Gauge
	compactKeys                      prometheus.Counter
	installing                       prometheus.Gauge
	slow                             prometheus.Counter
	applied                          [apply.Ops]outcomes
	read                             outcomes
	requests                         [edge.RequestKinds]outcomes
	promoted                         prometheus.Counter
	notPromoted                      *prometheus.CounterVec
}

var (
	_ node.Observer = (*metrics)(nil)
	_ edge.Observer = (*metrics)(nil)
)

// outcomes are the two sides of the last label of a histogram, success. Each is shown from when it was first met.
type outcomes struct {
	vec    *prometheus.HistogramVec
	labels []string
	sides  [2]atomic.Pointer[prometheus.Observer]
}

func (o *outcomes) observe(failed bool, took time.Duration) {
	side := &o.sides[0]
	if failed {
		side = &o.sides[1]
	}
	to := side.Load()
	if to == nil {
		found := o.vec.WithLabelValues(append(slices.Clone(o.labels), strconv.FormatBool(!failed))...)
		to = &found
		side.Store(to)
	}
	(*to).Observe(took.Seconds())
}

// slowAfter is from when on etcd counts a request as slow, unless it is told otherwise.
const slowAfter = 100 * time.Millisecond

// doubling are the bounds of a histogram, in etcd's way.
func doubling(from float64, count int) []float64 {
	return prometheus.ExponentialBuckets(from, 2, count)
}

func (m *metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return show(m, prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}))
}

func (m *metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return show(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels))
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	return show(m, prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help}))
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	return show(m, prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help}))
}

func show[C prometheus.Collector](m *metrics, c C) C {
	m.shown = append(m.shown, c)
	return c
}

func newMetrics() *metrics {
	m := &metrics{traffic: transport.NewMetrics()}
	m.changes = m.counter("etcd_server_leader_changes_seen_total", "The number of leader changes seen.")
	m.newDiskMetrics()
	m.newKeyMetrics()
	m.newRequestMetrics()
	return m
}

func (m *metrics) newDiskMetrics() {
	disk := doubling(0.001, 14)
	m.walSync = m.histogram("etcd_disk_wal_fsync_duration_seconds", "The latency distributions of fsync called by WAL.", disk)
	m.walWrite = m.histogram("etcd_disk_wal_write_duration_seconds", "Time of each write to the raft log.", disk)
	m.walBytes = m.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the raft log.")
	m.commit = m.histogram("etcd_disk_backend_commit_duration_seconds", "The latency distributions of commit called by backend.", disk)
	const part = "etcd_debugging_disk_backend_commit_"
	m.rebalance = m.histogram(part+"rebalance_duration_seconds", "Time of each commit that bbolt spent on merging pages.", disk)
	m.spill = m.histogram(part+"spill_duration_seconds", "Time of each commit that bbolt spent on laying out pages.", disk)
	m.write = m.histogram(part+"write_duration_seconds", "Time of each commit that bbolt spent on writing and syncing pages.", disk)
	m.defragment = m.histogram("etcd_disk_backend_defrag_duration_seconds", "Time of each defragmentation.", doubling(0.1, 13))
	m.image = m.histogram("etcd_disk_backend_snapshot_duration_seconds", "Time for which each image of the database was open.",
		doubling(0.01, 17))
	m.hash = m.histogram("etcd_mvcc_hash_duration_seconds", "Time of each hash of the whole database.", doubling(0.01, 15))
	m.hashRev = m.histogram("etcd_mvcc_hash_rev_duration_seconds", "Time of each hash of the keys up to a revision.", doubling(0.01, 15))
	m.installing = m.gauge("etcd_server_snapshot_apply_in_progress_total", "1 while a received image is made the state.")
}

func (m *metrics) newKeyMetrics() {
	m.ranges = m.counter("etcd_mvcc_range_total", "Ranges read, comparisons and previous key-values among them.")
	m.puts = m.counter("etcd_mvcc_put_total", "Puts carried out.")
	m.deletes = m.counter("etcd_mvcc_delete_total", "Deletions of ranges carried out.")
	m.txns = m.counter("etcd_mvcc_txn_total", "Requests of more than one operation on keys carried out.")
	m.putBytes = m.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Size of the keys and values put.")
	m.granted = m.counter("etcd_debugging_lease_granted_total", "Leases granted.")
	m.revoked = m.counter("etcd_debugging_lease_revoked_total", "Leases revoked, those that expired among them.")
	m.ttl = m.histogram("etcd_debugging_lease_ttl_total", "TTLs granted, in seconds.", doubling(1, 24))
	const compaction = "etcd_debugging_mvcc_db_compaction_"
	m.compactPause = m.histogram(compaction+"pause_duration_milliseconds", "Time for which each step of a compaction held up changes.",
		doubling(1, 13))
	m.compactTotal = m.histogram(compaction+"total_duration_milliseconds", "Time of each compaction, with its rests.", doubling(100, 14))
	m.compactLast = m.gauge(compaction+"last", "When the last compaction ended, in seconds since 1970.")
	m.compactKeys = m.counter(compaction+"keys_total", "Revisions dropped by compactions.")
}

func (m *metrics) newRequestMetrics() {
	m.slow = m.counter("etcd_server_slow_apply_total", "Writes that took more than 100 ms to be applied, and reads that took more to be answered.")
	applied := m.histograms("etcd_server_apply_duration_seconds", "Time of each command's application.", doubling(0.0001, 20),
		"version", "op", "success")
	for op := range m.applied {
		m.applied[op].vec, m.applied[op].labels = applied, []string{"v3", apply.Op(op).String()}
	}
	m.read.vec = m.histograms("etcd_server_range_duration_seconds", "Time of each read of keys from its view.", doubling(0.0001, 20), "success")
	requests := m.histograms("etcd_server_request_duration_seconds", "Time from the arrival of a request to its answer.", doubling(0.001, 14),
		"type", "success")
	for kind := range m.requests {
		m.requests[kind].vec, m.requests[kind].labels = requests, []string{edge.RequestKind(kind).String()}
	}
	m.promoted = m.counter("etcd_server_learner_promote_successes", "Learners promoted while this member led.")
	m.notPromoted = show(m, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_server_learner_promote_failures", Help: "Promotions refused while this member led.",
	}, []string{"Reason"}))
}
