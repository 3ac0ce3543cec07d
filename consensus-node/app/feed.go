package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/consensus-node/internal/outbox"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// ChangesSubject is where the changes of a cluster's keys are published.
func ChangesSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.changes", clusterID) }

// LeasesSubject is where the changes of its leases are published.
func LeasesSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.leases", clusterID) }

// WatchedSubject is where hubs say, without a payload, that somebody watches.
func WatchedSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.watched", clusterID) }

// publish walks the outbox for the bus. A bus that is full or gone loses messages; followers see it and fetch.
func (n *Node) publish(ctx context.Context) error {
	if n.deps.Bus == nil {
		return nil
	}
	subject, leaseSubject := ChangesSubject(n.clusterID), LeasesSubject(n.clusterID)
	var leases outbox.Leases
	var keys outbox.Keys
	tracer := n.deps.Tracers.Tracer("consensus-node")
	turned := make(chan struct{}, 1)
	var signalling sync.WaitGroup
	signalling.Go(func() { n.signalLeadership(ctx, turned) })
	defer signalling.Wait()
	// Where words may have been missed somebody may watch.
	hubs, err := n.deps.Bus.Subscribe(
		WatchedSubject(n.clusterID), func(bus.Message) { n.interest.Heard() }, func(bus.Cause) { n.interest.Heard() })
	if err != nil {
		return fmt.Errorf("the bus: %w", err)
	}
	defer func() { _ = hubs.Unsubscribe() }() // nothing is left to lose on it
	speaks := func() bool { return n.deps.SpeakAlways || n.raft.Status().Leader == n.memberID }
	outbox.Publish(ctx, n.ring.Cursor(n.speaker, outbox.BusMessageBytesMax), n.interest, speaks, turned, func(message *feedv1.Message) {
		span := publishSpan(ctx, tracer, subject, message)
		var header bus.Header
		if span != nil {
			header = bus.Header{}
			telemetry.Inject(trace.ContextWithSpan(ctx, span), header)
		}
		var err error
		now := time.Now()
		if told := keys.Of(message, now); told != nil {
			err = n.deps.Bus.PublishValue(subject, header, told)
		}
		if told := leases.Of(message, now); told != nil {
			err = errors.Join(err, n.deps.Bus.PublishValue(leaseSubject, header, told))
		}
		if span != nil {
			if err != nil {
				span.RecordError(err)
			}
			span.End()
		}
	})
	return nil
}

// signalLeadership wakes the publisher at each change of leader, so that a new one speaks at once.
func (n *Node) signalLeadership(ctx context.Context, turned chan<- struct{}) {
	for {
		_, changed := n.raft.Leadership()
		select {
		case <-changed:
		case <-n.raft.Stopped():
			return
		case <-ctx.Done():
			return
		}
		select {
		case turned <- struct{}{}:
		default:
		}
	}
}

// publishSpan begins the span of a message that carries a sampled write, or gives nil: then nothing is paid.
func publishSpan(ctx context.Context, tracer trace.Tracer, subject string, message *feedv1.Message) trace.Span {
	var links []trace.Link
	var parent trace.SpanContext
	add := func(encoded []byte) {
		if len(encoded) == 0 {
			return
		}
		written := telemetry.DecodeSpanContext(encoded)
		if !written.IsSampled() {
			return
		}
		if !parent.IsValid() {
			parent = written
		}
		if last := len(links) - 1; len(links) < linksMax && (last < 0 || !links[last].SpanContext.Equal(written)) {
			links = append(links, trace.Link{SpanContext: written})
		}
	}
	for _, revision := range message.GetRevisions() {
		add(revision.GetSpanContext())
	}
	for _, change := range message.GetLeaseChanges() {
		add(change.GetSpanContext())
	}
	if !parent.IsValid() {
		return nil
	}
	_, span := tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), "publish holdfast.changes", //nolint:spancheck // the caller ends it
		trace.WithSpanKind(trace.SpanKindProducer), trace.WithLinks(links...),
		trace.WithAttributes(
			attribute.String("messaging.system", "nats"), attribute.String("messaging.operation.name", "publish"),
			attribute.String("messaging.destination.name", subject), attribute.Int("messaging.batch.message_count", len(message.GetRevisions())),
		))
	return span //nolint:spancheck // as above
}

// linksMax bounds the links of one span, as the conventions do.
const linksMax = 128

// hostPorts gives the "host:port" of URLs.
func hostPorts(urls []string) ([]string, error) {
	out := make([]string, 0, len(urls))
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("a member has the malformed URL %q: %w", text, err)
		}
		out = append(out, u.Host)
	}
	return out, nil
}
