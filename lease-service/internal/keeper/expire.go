package keeper

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

const (
	// decisionMax bounds the leases of one call, and decidingMax the calls under way: leases that all ran out during an outage
	// are revoked as fast as the consensus tier takes them, and those that still wait may be renewed meanwhile.
	decisionMax = 1024
	decidingMax = 2
	// proposeTimeout bounds one call that proposes something. Past it the outcome is unknown and the call is made again.
	proposeTimeout = 5 * time.Second
	proposeRetry   = 100 * time.Millisecond
	// stoppedFor is when a read tells what became of a client's revoke: later than the longest that a node keeps trying.
	stoppedFor = 10 * time.Second
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
	for s.deciding < decidingMax {
		decision := s.core.Decide(now, decisionMax)
		if len(decision.IDs) == 0 {
			break
		}
		s.deciding++
		sequence, _ := s.core.Sequence()
		for _, id := range decision.IDs {
			lease, _ := s.core.Lease(id)
			events = append(events, owner.Event{
				Kind: leasev1.Kind_KIND_EXPIRING, Lease: id, Sequence: sequence, TTLS: lease.TTLS, Revision: s.revision,
			})
		}
		s.work.Go(func() { s.expire(ctx, decision) })
	}
	s.tidyLocked(ctx, now)
	s.revisitLocked(now)
	s.announceLocked(events)
	s.mu.Unlock()
}

// tidyLocked begins the reads that settle stopped leases, and the clearing of checkpoints. The caller holds the lock.
func (s *Service) tidyLocked(ctx context.Context, now time.Duration) {
	before := now - stoppedFor
	if stopped := s.core.Stopped(before, readsMax); len(stopped) > 0 && !s.settling {
		s.settling = true
		s.work.Go(func() { s.settle(ctx, before, stopped) })
	}
	if epoch, ids := s.core.Clears(decisionMax); len(ids) > 0 && !s.clearing {
		s.clearing = true
		s.work.Go(func() { s.clear(ctx, epoch, ids) })
	}
}

// expire proposes a decision until its outcome is known. Proposing again is harmless: nothing was acknowledged since the
// decision, and once one proposal is rejected for its epoch, or for a lease that was granted later, so is every other. It settles
// an unknown outcome at least as well as a read, which could miss a proposal that is still on its way.
func (s *Service) expire(ctx context.Context, decision owner.Decision) {
	ctx, span := s.cfg.Tracer.Start(ctx, "expire leases", trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.Int("holdfast.lease.count", len(decision.IDs))))
	defer span.End()
	if span.IsRecording() {
		header := bus.Header{}
		telemetry.Inject(ctx, header)
		s.mu.Lock()
		for _, id := range decision.IDs {
			s.expiring[id] = header
		}
		s.mu.Unlock()
	}
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
			s.deciding--
			s.forgetLocked(decision, response)
			s.changedLocked(now)
			s.mu.Unlock()
			if err != nil {
				span.RecordError(err)
			}
			s.cfg.Metrics.outcomes(response.GetOutcomes())
			signal(s.tickNow)
			signal(s.beatNow)
			return
		}
		s.mu.Unlock()
		s.cfg.Logger.DebugContext(ctx, "expiry not confirmed yet", "leases", len(decision.IDs), "error", err)
		s.pause(ctx, proposeRetry)
	}
}

// forgetLocked forgets the traces of expiries that will not be told of in the lease sequence. The caller holds the lock.
func (s *Service) forgetLocked(decision owner.Decision, response *consensusv1.ExpireLeasesResponse) {
	for i, id := range decision.IDs {
		if response == nil || response.GetOutcomes()[i] != consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED {
			delete(s.expiring, id)
		}
	}
}

func (s *Service) expireOnce(ctx context.Context, decision owner.Decision) (*consensusv1.ExpireLeasesResponse, error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(telemetry.Outgoing(ctx), proposeTimeout)
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

// settle finds out what became of revokes that clients began.
func (s *Service) settle(ctx context.Context, before time.Duration, ids []int64) {
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
	for i, id := range ids {
		s.core.Resume(before, id, response.GetTtlS()[i] > 0, response.GetSequence())
	}
	s.changedLocked(now)
}

// clear has checkpoints cleared. The keepalives that wait for it go on when the change arrives in sequence.
func (s *Service) clear(ctx context.Context, epoch uint64, ids []int64) {
	defer func() {
		s.mu.Lock()
		s.clearing = false
		s.mu.Unlock()
	}()
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return // the next tick tries again
	}
	request := &consensusv1.CheckpointLeasesRequest{
		Epoch: epoch, Name: s.cfg.Instance.GetName(), Incarnation: s.cfg.Instance.GetIncarnation(),
	}
	for _, id := range ids {
		request.Checkpoints = append(request.Checkpoints, &feedv1.LeaseCheckpoint{Id: id})
	}
	bounded, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	response, err := node.CheckpointLeases(bounded, request)
	if err != nil {
		s.cfg.Logger.DebugContext(ctx, "checkpoints not cleared", "leases", len(ids), "error", err)
		s.blame(ctx, node)
		return
	}
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follower.Told(response.GetSequence())
	s.followedLocked(now)
}
