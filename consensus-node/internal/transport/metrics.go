package transport

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what a member counts of its traffic with the others, under etcd's names and labels; ids are hexadecimal. What belongs to one
// peer or stream is looked up when that begins: a batch costs two additions.
type Metrics struct {
	active, known                                          *prometheus.GaugeVec
	disconnected                                           *prometheus.CounterVec
	sentBytes, receivedBytes, sentFailures, receivedFailed *prometheus.CounterVec
	roundTrip                                              *prometheus.HistogramVec
	sends, receives                                        imageMetrics
	imageSaved, imageSynced                                prometheus.Histogram
}

// imageMetrics are those of one direction.
type imageMetrics struct {
	success, failures *prometheus.CounterVec
	inflight          *prometheus.GaugeVec
	seconds           *prometheus.HistogramVec
}

func networkOpts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: "etcd", Subsystem: "network", Name: name, Help: help}
}

func networkCounter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts(networkOpts(name, help)), labels)
}

func networkGauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts(networkOpts(name, help)), labels)
}

func networkSeconds(name, help, label string, buckets []float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(
		prometheus.HistogramOpts{Namespace: "etcd", Subsystem: "network", Name: name, Help: help, Buckets: buckets}, []string{label})
}

func newImageMetrics(verb, past, label string) imageMetrics {
	prefix := "snapshot_" + verb + "_"
	return imageMetrics{
		success:  networkCounter(prefix+"success", "Images of the database "+past+" whole.", label),
		failures: networkCounter(prefix+"failures", "Images of the database not "+past+" whole.", label),
		inflight: networkGauge(prefix+"inflights_total", "Images of the database being "+past+".", label),
		seconds: networkSeconds(prefix+"total_duration_seconds", "Time that an image of the database took to be "+past+", with its installation.",
			label, prometheus.ExponentialBuckets(0.1, 2, 10)),
	}
}

// NewMetrics makes the metrics; Register shows them.
func NewMetrics() *Metrics {
	image := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "etcd", Subsystem: "snap_db", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.1, 2, 10),
		})
	}
	return &Metrics{
		active:         networkGauge("active_peers", "1 while messages to the member can be delivered.", "Local", "Remote"),
		known:          networkGauge("known_peers", "1 for each member that is known.", "Local", "Remote"),
		disconnected:   networkCounter("disconnected_peers_total", "Times that the connection to a member ended.", "Local", "Remote"),
		sentBytes:      networkCounter("peer_sent_bytes_total", "Bytes of messages and images sent to a member.", "To"),
		receivedBytes:  networkCounter("peer_received_bytes_total", "Bytes of messages and images received from a member.", "From"),
		sentFailures:   networkCounter("peer_sent_failures_total", "Messages and images that a member could not be sent.", "To"),
		receivedFailed: networkCounter("peer_received_failures_total", "Messages and images of a member that could not be taken.", "From"),
		roundTrip: networkSeconds("peer_round_trip_time_seconds", "Time from a question to a member to its answer.", "To",
			prometheus.ExponentialBuckets(0.0001, 2, 16)),
		sends:       newImageMetrics("send", "sent", "To"),
		receives:    newImageMetrics("receive", "received", "From"),
		imageSaved:  image("save_total_duration_seconds", "Time that a received image took to be on the disk, from its first bytes on."),
		imageSynced: image("fsync_duration_seconds", "Time of the last fsync of a received image."),
	}
}

// Register shows the metrics.
func (m *Metrics) Register(registerer prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.active, m.known, m.disconnected, m.sentBytes, m.receivedBytes, m.sentFailures, m.receivedFailed, m.roundTrip,
		m.sends.success, m.sends.failures, m.sends.inflight, m.sends.seconds,
		m.receives.success, m.receives.failures, m.receives.inflight, m.receives.seconds, m.imageSaved, m.imageSynced,
	} {
		if err := registerer.Register(c); err != nil {
			return fmt.Errorf("transport: %w", err)
		}
	}
	return nil
}

func label(id uint64) string { return fmt.Sprintf("%x", id) }

// peerMetrics are those of one member that messages go to.
type peerMetrics struct {
	active, known           prometheus.Gauge
	disconnected            prometheus.Counter
	sentBytes, sentFailures prometheus.Counter
	roundTrip               prometheus.Observer
}

func (m *Metrics) peer(local, remote uint64) peerMetrics {
	return peerMetrics{
		active: m.active.WithLabelValues(label(local), label(remote)), known: m.known.WithLabelValues(label(local), label(remote)),
		disconnected: m.disconnected.WithLabelValues(label(local), label(remote)),
		sentBytes:    m.sentBytes.WithLabelValues(label(remote)), sentFailures: m.sentFailures.WithLabelValues(label(remote)),
		roundTrip: m.roundTrip.WithLabelValues(label(remote)),
	}
}

// begin counts an image that is under way to or from a member; what it returns is called with what came of it.
func (m *imageMetrics) begin(id uint64) func(error) {
	began, name := time.Now(), label(id)
	m.inflight.WithLabelValues(name).Inc()
	return func(err error) {
		m.inflight.WithLabelValues(name).Dec()
		if err != nil {
			m.failures.WithLabelValues(name).Inc()
			return
		}
		m.success.WithLabelValues(name).Inc()
		m.seconds.WithLabelValues(name).Observe(time.Since(began).Seconds())
	}
}
