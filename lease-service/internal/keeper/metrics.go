package keeper

import (
	"github.com/prometheus/client_golang/prometheus"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

// Metrics counts what a Service does. Make one with NewMetrics.
type Metrics struct {
	registerer prometheus.Registerer
	keepAlives [len(outcomeLabels)]prometheus.Counter
	heartbeats *prometheus.CounterVec
	expiries   *prometheus.CounterVec
	events     *prometheus.CounterVec
	tables     *prometheus.CounterVec
	// checkpoints counts leases.
	checkpoints *prometheus.CounterVec
	expired     prometheus.Counter
	// renewed and lapsed are the same as two of the others, under etcd's names.
	renewed, lapsed prometheus.Counter
}

// outcomeLabels are the outcomes of keepalives, by their number.
var outcomeLabels = [...]string{"unspecified", "renewed", "not_found", "not_owner", "unavailable", "done"}

// NewMetrics makes the metrics and registers them; a nil registerer keeps them to themselves.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		registerer.MustRegister(v)
		return v
	}
	m := &Metrics{
		registerer: registerer,
		heartbeats: vector("holdfast_lease_heartbeats_total", "Heartbeats to the consensus tier by outcome.", "outcome"),
		expiries:   vector("holdfast_lease_expiries_total", "Decisions to expire a lease by what the consensus tier made of them.", "outcome"),
		events:     vector("holdfast_lease_events_total", "What happened to leases owned by this instance.", "kind"),
		tables:     vector("holdfast_lease_table_reads_total", "Reads of the lease table by outcome: at start, and for each gap in the feed.", "outcome"),
		checkpoints: vector("holdfast_lease_checkpoints_total",
			"Leases whose rest was recorded, or cleared for a keepalive, in the consensus tier.", "what"),
		expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_lease_expired_total", Help: "Leases that this instance had expired."}),
	}
	m.renewed = prometheus.NewCounter(prometheus.CounterOpts{Name: "etcd_debugging_lease_renewed_total", Help: "Keepalives that renewed a lease."})
	m.lapsed = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "etcd_debugging_server_lease_expired_total", Help: "Leases that this instance had expired.",
	})
	registerer.MustRegister(m.expired, m.renewed, m.lapsed)
	answers := vector("holdfast_lease_keepalives_total", "Keepalives answered, by outcome; done: stops of leases that clients revoke.", "outcome")
	for i, label := range outcomeLabels {
		if i > 0 {
			m.keepAlives[i] = answers.WithLabelValues(label)
		}
	}
	return m
}

// observe registers the figures that are read off a service.
func (m *Metrics) observe(s *Service) {
	gauge := func(name, help string, value func() float64) {
		m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return value()
		}))
	}
	gauge("holdfast_lease_owned", "Leases that this instance owns.", func() float64 { return float64(s.core.Owned()) })
	gauge("holdfast_lease_known", "Leases that exist, whoever owns them.", func() float64 { return float64(s.core.Known()) })
	gauge("holdfast_lease_memory_bytes", "Memory that all known leases take here, by estimate; what the most of them took at a time is kept.",
		func() float64 { return float64(s.core.Bytes()) })
	gauge("holdfast_lease_epoch", "Epoch of the newest view known.", func() float64 { return float64(s.core.Epoch()) })
	gauge("holdfast_lease_sequence", "Lease sequence up to which the table is known.", func() float64 {
		sequence, _ := s.core.Sequence()
		return float64(sequence)
	})
	gauge("holdfast_lease_heartbeat_age_seconds", "Time since the last confirmed heartbeat was sent; -1 if none counts.", func() float64 {
		if age, ok := s.core.HeartbeatAge(s.cfg.Clock.Now()); ok {
			return age.Seconds()
		}
		return -1
	})
}

func (m *Metrics) keepAlive(outcome leasev1.Outcome) {
	if outcome > 0 && int(outcome) < len(m.keepAlives) {
		m.keepAlives[outcome].Inc()
	}
	if outcome == leasev1.Outcome_OUTCOME_RENEWED {
		m.renewed.Inc()
	}
}

func (m *Metrics) outcomes(outcomes []consensusv1.ExpireOutcome) {
	for _, outcome := range outcomes {
		switch outcome {
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED:
			m.expired.Inc()
			m.lapsed.Inc()
			m.expiries.WithLabelValues("revoked").Inc()
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND:
			m.expiries.WithLabelValues("not_found").Inc()
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER:
			m.expiries.WithLabelValues("not_owner").Inc()
		case consensusv1.ExpireOutcome_EXPIRE_OUTCOME_UNSPECIFIED:
			m.expiries.WithLabelValues("unspecified").Inc()
		}
	}
}
