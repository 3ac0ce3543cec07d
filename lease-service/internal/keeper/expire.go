package keeper

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

const (
	// decisionMax bounds the leases of one call, of which there is one after the other where many run out at once, each after a rest: so that
	// all that wait are gone after about expirySpread, evenly, and the writes of clients come in between. A call that takes too long for
	// that pace is followed by one of more leases than decisionLeast.
	decisionMax   = 512
	decisionLeast = 128
	expirySpread  = 2500 * time.Millisecond
	// restMost bounds a rest: where few wait there is no need for so long a time.
	restMost = 25 * time.Millisecond
	// countEvery is how often those that wait are counted.
	countEvery = 250 * time.Millisecond
	// proposeTimeout bounds one call that proposes something. Past it the outcome is unknown and the call is made again.
	proposeTimeout = 5 * time.Second
	proposeRetry   = 100 * time.Millisecond
)

// runTicks moves the clocks until the context ends, and waits for the calls that it began.
func (s *Service) runTicks(ctx context.Context) error {
	defer s.work.Wait()
	ticker := s.cfg.Clock.NewTicker(owner.TickEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C():
		case <-s.tickNow:
		case <-ctx.Done():
			return nil
		}
		s.tick(ctx)
	}
}

func (s *Service) tick(ctx context.Context) {
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	if s.core.Tick(now) {
		s.cfg.Logger.Warn("this process was not running for a while, so a new heartbeat must confirm it first")
		signal(s.beatNow)
	}
	var events []owner.Event
	if decision := s.decideLocked(now); len(decision.IDs) > 0 {
		s.deciding = true
		deciding, span := s.begin(ctx, decision)
		var encoded []byte
		if span.IsRecording() {
			encoded = telemetry.EncodeSpanContext(span.SpanContext())
		}
		sequence, _ := s.core.Sequence()
		for _, id := range decision.IDs {
			lease, _ := s.core.Lease(id)
			events = append(events, owner.Event{
				Kind: leasev1.Kind_KIND_EXPIRING, Lease: id, Sequence: sequence, TTLS: lease.TTLS, Revision: s.revision, Span: encoded,
			})
		}
		s.work.Go(func() { s.expire(deciding, span, decision) })
	}
	s.tidyLocked(ctx, now)
	s.revisitLocked(now)
	s.announceLocked(events)
	s.mu.Unlock()
}

// decideLocked decides what to expire, unless a call is under way. The caller holds the lock.
func (s *Service) decideLocked(now time.Duration) owner.Decision {
	if s.deciding {
		return owner.Decision{}
	}
	return s.core.Decide(now, s.pacing.leases)
}

// pace is how fast expiries go out.
type pace struct {
	leases  int           // of the next call at most
	rate    float64       // of leases a second, 0 while none wait
	counted time.Duration // when it was reckoned
	due     time.Duration // when the next call is to begin
}

// next takes in that a call of so many leases took so long at now, and gives the rest that follows it. waiting counts those that still
// wait.
func (p *pace) next(now time.Duration, leases int, took time.Duration, waiting func() int) (rest time.Duration) {
	if leases < p.leases {
		*p = pace{leases: decisionLeast} // nothing waits
		return 0
	}
	if p.rate == 0 || now-p.counted >= countEvery {
		// Never slower, as there are fewer: the last of them would take forever.
		if p.rate == 0 {
			p.due = now - took
		}
		p.rate, p.counted = max(p.rate, float64(waiting())/expirySpread.Seconds()), now
	}
	// Reckoned from when it was to begin, so that a rest which lasts a little longer than it should delays that call alone.
	p.due += time.Duration(float64(leases) / max(p.rate, 1) * float64(time.Second))
	p.due = min(max(p.due, now-restMost), now+restMost)
	late := max(now-p.due, 0)
	p.leases = min(max(int(p.rate*(took+late).Seconds()), decisionLeast), decisionMax, 2*p.leases)
	return max(p.due-now, 0)
}

// tidyLocked begins the reads that settle stopped leases, and what is due of checkpoints. The caller holds the lock.
func (s *Service) tidyLocked(ctx context.Context, now time.Duration) {
	if !s.settling {
		if stopped := s.core.Stopped(now, readsMax); len(stopped) > 0 {
			s.settling = true
			s.work.Go(func() { s.settle(ctx, now, stopped) })
		}
	}
	s.checkpointsLocked(ctx, now)
}

// begin begins the trace of an expiry: what the consensus tier does with it, the events that tell of it and what watchers see of it
// belong to it. The caller ends the span.
func (s *Service) begin(ctx context.Context, decision owner.Decision) (context.Context, trace.Span) {
	ctx, span := s.cfg.Tracer.Start(ctx, "expire leases", trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("holdfast.lease.count", len(decision.IDs)), attribute.Int64("holdfast.lease.epoch", int64(decision.Epoch)))
	}
	return ctx, span
}

// expire proposes a decision until its outcome is known. Proposing again is harmless: nothing was acknowledged since the
// decision, and once one proposal is rejected for its epoch, or for a lease that was granted later, so is every other. It settles
// an unknown outcome at least as well as a read, which could miss a proposal that is still on its way.
func (s *Service) expire(ctx context.Context, span trace.Span, decision owner.Decision) {
	defer span.End()
	began := s.cfg.Clock.Now()
	for {
		response, err := s.expireOnce(ctx, decision)
		now := s.cfg.Clock.Now()
		s.mu.Lock()
		if err == nil {
			s.follower.Told(response.GetSequence())
			s.core.Outcome(now, decision, response.GetOutcomes())
			s.followedLocked(now)
		}
		if err == nil || !s.core.Standing(decision) || ctx.Err() != nil {
			s.changedLocked(now)
			void := !s.core.Holds(now)
			rest := s.pacing.next(now, len(decision.IDs), now-began, func() int { return s.core.Overdue(now) })
			s.mu.Unlock()
			if err != nil {
				span.RecordError(err)
			}
			s.cfg.Metrics.outcomes(response.GetOutcomes())
			if void {
				signal(s.beatNow)
			}
			if rest > 0 {
				s.pause(ctx, rest)
			}
			s.mu.Lock()
			s.deciding = false
			s.mu.Unlock()
			signal(s.tickNow)
			return
		}
		s.mu.Unlock()
		s.cfg.Logger.DebugContext(ctx, "expiry not confirmed yet", "leases", len(decision.IDs), "error", err)
		s.pause(ctx, proposeRetry)
	}
}

func (s *Service) expireOnce(ctx context.Context, decision owner.Decision) (*consensusv1.ExpireLeasesResponse, error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.cfg.Tier.Ask(telemetry.Outgoing(ctx), node, proposeTimeout)
	defer cancel()
	response, err := node.ExpireLeases(bounded, &consensusv1.ExpireLeasesRequest{
		Ids: decision.IDs, Epoch: decision.Epoch, Name: s.cfg.Instance.GetName(), Incarnation: s.cfg.Instance.GetIncarnation(),
		DecidedSequence: decision.Sequence,
	})
	if err == nil && len(response.GetOutcomes()) != len(decision.IDs) {
		err = fmt.Errorf("keeper: %d outcomes of %d expiries", len(response.GetOutcomes()), len(decision.IDs))
	}
	if err != nil {
		s.blame(ctx, node)
		return nil, fmt.Errorf("keeper: expire leases at %s: %w", node.Address, err)
	}
	return response, nil
}

// settle finds out what became of revokes that clients began, by a read that begins after the time at which they were listed.
func (s *Service) settle(ctx context.Context, began time.Duration, ids []int64) {
	response, err := s.read(ctx, ids)
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settling = false
	if err != nil {
		return // the next tick tries again
	}
	s.follower.Told(response.GetSequence())
	s.followedLocked(now)
	for _, id := range ids {
		s.core.Resume(began, id, response.GetSequence())
	}
	s.changedLocked(now)
}
