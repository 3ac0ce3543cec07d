package edge

import (
	"errors"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// Metrics are the proxy's own. They bear etcd's names where they mean the same.
type Metrics struct {
	started   *prometheus.CounterVec
	finished  *prometheus.CounterVec
	received  *prometheus.CounterVec
	sent      *prometheus.CounterVec
	broken    *prometheus.CounterVec
	seconds   *prometheus.HistogramVec // nil unless extensive
	sentBytes prometheus.Counter
	gotBytes  prometheus.Counter
	events    prometheus.Counter
	watches   prometheus.Gauge
	streams   prometheus.Gauge
	slow      prometheus.Gauge
	lag       prometheus.Gauge
	lagTime   prometheus.Gauge
	moved     *prometheus.CounterVec
	healthy   prometheus.Counter
	unhealthy prometheus.Counter
	hasLeader prometheus.Gauge
}

// NewMetrics makes the metrics and registers them; extensive adds a histogram of the time that calls take, as etcd's flag
// --metrics does.
func NewMetrics(registerer prometheus.Registerer, extensive bool) *Metrics {
	labels := []string{"grpc_type", "grpc_service", "grpc_method"}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &Metrics{
		started: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_started_total", Help: "Total number of RPCs started on the server.",
		}, labels),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_handled_total", Help: "Total number of RPCs completed on the server, by code.",
		}, append(labels, "grpc_code")),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_msg_received_total", Help: "Total number of messages received from clients.",
		}, labels),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "grpc_server_msg_sent_total", Help: "Total number of messages sent to clients.",
		}, labels),
		broken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_network_server_stream_failures_total", Help: "Streams whose messages could not be received or sent although the client was there.",
		}, []string{"Type", "API"}),
		gotBytes:  counter("etcd_network_client_grpc_received_bytes_total", "Bytes of messages received from clients."),
		events:    counter("etcd_debugging_mvcc_events_total", "Total number of events sent to watchers."),
		sentBytes: counter("etcd_network_client_grpc_sent_bytes_total", "Bytes of messages sent to clients."),
		watches:   gauge("etcd_debugging_mvcc_watcher_total", "Total number of watchers."),
		streams:   gauge("etcd_debugging_mvcc_watch_stream_total", "Total number of watch streams."),
		slow:      gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers off the live path because of slow clients."),
		lag:       gauge("holdfast_watch_proxy_lag_revisions", "Revisions known to exist that a watch-hub in use has not told yet."),
		lagTime:   gauge("holdfast_watch_proxy_lag_seconds", "How long a watch-hub in use has been behind, up to a minute."),
		moved: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "holdfast_watch_moved_total", Help: "Watches registered anew with a watch-hub, by cause.",
		}, []string{"cause"}),
		healthy:   counter("etcd_server_health_success", "The total number of successful health checks."),
		unhealthy: counter("etcd_server_health_failures", "The total number of failed health checks."),
		hasLeader: gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not."),
	}
	registerer.MustRegister(m.started, m.finished, m.received, m.sent, m.broken, m.sentBytes, m.gotBytes, m.events, m.watches, m.streams, m.slow, m.lag, m.lagTime, m.moved,
		m.healthy, m.unhealthy)
	// A node in the same process says whether it has a leader, and says it first.
	if err := registerer.Register(m.hasLeader); err != nil && !errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		panic(err)
	}
	if extensive {
		m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "grpc_server_handling_seconds", Help: "Response latency of RPCs that the server handled, in seconds.",
		}, labels)
		registerer.MustRegister(m.seconds)
	}
	return m
}

// methodCounts are the counters of one method, resolved ahead of the calls.
type methodCounts struct {
	started, received, sent prometheus.Counter
	seconds                 prometheus.Observer // nil unless extensive
	codes                   [codes.Unauthenticated + 1]prometheus.Counter
	// notReceived and notSent are for the streams of watches and keepalives.
	notReceived, notSent prometheus.Counter
}

func (m *Metrics) method(service, name, kind string) *methodCounts {
	c := &methodCounts{
		started:  m.started.WithLabelValues(kind, service, name),
		received: m.received.WithLabelValues(kind, service, name), sent: m.sent.WithLabelValues(kind, service, name),
	}
	if api, ok := map[string]string{"Watch": "watch", "LeaseKeepAlive": "lease-keepalive"}[name]; ok { // etcd's names
		c.notReceived, c.notSent = m.broken.WithLabelValues("receive", api), m.broken.WithLabelValues("send", api)
	}
	if m.seconds != nil {
		c.seconds = m.seconds.WithLabelValues(kind, service, name)
	}
	for code := range c.codes {
		c.codes[code] = m.finished.WithLabelValues(kind, service, name, codes.Code(code).String())
	}
	return c
}

// Bytes are the counters for the codec.
func (m *Metrics) Bytes() (sent, received wire.Counter) { return m.sentBytes, m.gotBytes }

// counted is a stream whose messages are counted.
type counted struct {
	grpc.ServerStream
	counts *methodCounts
}

// SendMsg counts what was sent.
func (s *counted) SendMsg(message any) error {
	err := s.ServerStream.SendMsg(message)
	s.count(err, s.counts.sent, s.counts.notSent)
	return err
}

// RecvMsg counts what was received.
func (s *counted) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	s.count(err, s.counts.received, s.counts.notReceived)
	return err
}

// count passes over the end of a stream: the client has ended it, or has gone.
func (s *counted) count(err error, done, failed prometheus.Counter) {
	switch {
	case err == nil:
		done.Inc()
	case failed != nil && !errors.Is(err, io.EOF) && s.Context().Err() == nil:
		failed.Inc()
	}
}

// begin counts a call that starts and gives its start for handled.
func (c *methodCounts) begin() time.Time {
	c.started.Inc()
	if c.seconds == nil {
		return time.Time{}
	}
	return time.Now()
}

func (c *methodCounts) handled(start time.Time, err error) {
	if c.seconds != nil {
		c.seconds.Observe(time.Since(start).Seconds())
	}
	code := codes.OK
	if err != nil {
		code = status.Code(err)
	}
	if int(code) >= len(c.codes) {
		code = codes.Unknown
	}
	c.codes[code].Inc()
}
