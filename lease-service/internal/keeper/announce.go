package keeper

import (
	"fmt"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// eventVersion is the format version of the events.
const eventVersion = 1

// EventsSubject is where the lease events of a cluster are announced.
func EventsSubject(clusterID uint64) string {
	return fmt.Sprintf("holdfast.%016x.lease.events", clusterID)
}

// announceLocked publishes events. The bus never waits, so the order of the events is that of the core. The caller holds the
// lock.
func (s *Service) announceLocked(events []owner.Event) {
	if len(events) == 0 {
		return
	}
	cluster, _ := s.cfg.Tier.Cluster()
	subject := EventsSubject(cluster)
	counter := s.cfg.Metrics.events.WithLabelValues(kindLabel(events[0].Kind))
	for i := range events {
		event := &events[i]
		if i > 0 && event.Kind != events[i-1].Kind {
			counter = s.cfg.Metrics.events.WithLabelValues(kindLabel(event.Kind))
		}
		counter.Inc()
		if s.cfg.Bus == nil {
			continue
		}
		message := &leasev1.Event{
			Version: eventVersion, ClusterId: cluster, Instance: s.cfg.Instance.GetName(), Sequence: event.Sequence,
			Kind: event.Kind, Lease: event.Lease, TtlS: event.TTLS, RemainingTtlS: event.RemainingS, Revision: event.Revision,
		}
		data, err := message.MarshalVT()
		if err != nil {
			s.cfg.Logger.Error("a lease event cannot be encoded", "lease", event.Lease, "error", err)
			continue
		}
		// The bus counts what it drops; nobody may rely on these events.
		_ = s.cfg.Bus.Publish(subject, traceHeader(event.Span), data)
	}
}

// traceHeader is the header with a span context, nil without one.
func traceHeader(span []byte) bus.Header {
	if len(span) == 0 {
		return nil
	}
	sc := telemetry.DecodeSpanContext(span)
	header := bus.Header{}
	header.Set("traceparent", fmt.Sprintf("00-%s-%s-%s", sc.TraceID(), sc.SpanID(), sc.TraceFlags()))
	return header
}

func kindLabel(kind leasev1.Kind) string {
	switch kind {
	case leasev1.Kind_KIND_GRANTED:
		return "granted"
	case leasev1.Kind_KIND_EXPIRING:
		return "expiring"
	case leasev1.Kind_KIND_EXPIRED:
		return "expired"
	case leasev1.Kind_KIND_REVOKED:
		return "revoked"
	case leasev1.Kind_KIND_UNSPECIFIED:
	}
	return "unspecified"
}
