package engine

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
)

// Metrics are what a hub shows of itself.
type Metrics struct {
	gaps, backfills                *prometheus.CounterVec
	fetches, lookups               prometheus.Counter
	revisions, deliveries          prometheus.Counter
	watchers, live, streams        prometheus.Gauge
	position, lag, span, spanBytes prometheus.Gauge
	lagSeconds                     prometheus.Gauge

	// behind is a revision that is known to exist and was not matched since; the zero time: none.
	behind      int64
	behindSince time.Time
}

// NewMetrics makes the metrics and registers them.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "holdfast", Subsystem: "watch", Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "watch", Name: name, Help: help})
	}
	causes := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(
			prometheus.CounterOpts{Namespace: "holdfast", Subsystem: "watch", Name: name, Help: help}, []string{"cause"})
	}
	m := &Metrics{
		gaps:       causes("gaps_total", "Times that changes were missing, or may have been, by what showed it."),
		backfills:  causes("backfills_total", "Gaps that were filled from a node's history, by what had shown them."),
		fetches:    counter("history_fetches_total", "Requests for the history of registrations older than the window."),
		lookups:    counter("previous_lookups_total", "Previous values that were asked of a node."),
		revisions:  counter("revisions_total", "Revisions matched for live registrations."),
		deliveries: counter("deliveries_total", "Deliveries of live changes put into the queues of proxies."),
		watchers:   gauge("hub_watchers", "Registrations held."),
		live:       gauge("hub_live_watchers", "Registrations that need no catching up."),
		streams:    gauge("hub_streams", "Streams of proxies."),
		position:   gauge("hub_position_revision", "Revision up to which every change was matched."),
		lag:        gauge("lag_revisions", "Revisions known to exist that were not matched yet."),
		lagSeconds: gauge("lag_seconds", "How long a revision has been known to exist without being matched."),
		span:       gauge("window_revisions", "Revisions that the window spans."),
		spanBytes:  gauge("window_bytes", "Size of the changes in the window."),
	}
	if registerer == nil { // nobody wants to see them
		return m
	}
	registerer.MustRegister(m.gaps, m.backfills, m.fetches, m.lookups, m.revisions, m.deliveries,
		m.watchers, m.live, m.streams, m.position, m.lag, m.lagSeconds, m.span, m.spanBytes)
	return m
}

func (m *Metrics) observe(s hub.Stats, now time.Time) {
	switch {
	case s.Head <= s.Position:
		m.behindSince = time.Time{}
	case m.behindSince.IsZero() || m.behind <= s.Position:
		m.behind, m.behindSince = s.Head, now
	}
	if m.behindSince.IsZero() {
		m.lagSeconds.Set(0)
	} else {
		m.lagSeconds.Set(now.Sub(m.behindSince).Seconds())
	}
	m.watchers.Set(float64(s.Registrations))
	m.live.Set(float64(s.Live))
	m.streams.Set(float64(s.Streams))
	m.position.Set(float64(s.Position))
	m.lag.Set(float64(s.Head - s.Position))
	m.span.Set(float64(s.Position - s.WindowBase))
	m.spanBytes.Set(float64(s.WindowBytes))
}
