package keeper

import (
	"context"
	"errors"
	"io"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/credit"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

const (
	// parkedMax bounds the keepalives that wait for a change, and proofsMax those that wait for a read.
	parkedMax = 1 << 14
	proofsMax = 1 << 14
	// parkedFor is how long a keepalive waits before its proxy is told to ask again.
	parkedFor = 500 * time.Millisecond
	// answerBytes is what an answer counts in a batch.
	answerBytes = 32
)

func laneLimits() credit.Limits {
	return credit.Limits{QueueItems: 1 << 16, QueueBytes: 4 << 20, BatchItems: 4096, BatchBytes: 256 << 10}
}

// errSlow ends a stream whose proxy does not take its answers.
var errSlow = status.Error(codes.ResourceExhausted, "lease-service: too many answers wait for this stream")

// stream is one proxy's KeepAlives stream.
type stream struct {
	lane *credit.Lane[*leasev1.KeepAliveAnswer]
	// fail ends the stream; it may be called often.
	fail context.CancelCauseFunc
}

func (st *stream) put(answer *leasev1.KeepAliveAnswer) {
	if err := st.lane.Put(answer); errors.Is(err, credit.ErrFull) {
		st.fail(errSlow)
	}
}

// question is a keepalive, or what is told of a client's revoke.
type question struct {
	to     *stream
	answer *leasev1.KeepAliveAnswer
	lease  int64
	ask    leasev1.Ask
	ticket uint64
	span   trace.Span // nil if the keepalive is not traced
	// until is when the proxy is told to ask again; after is the sequence that must be known before it is looked at.
	until time.Duration
	after uint64
}

// KeepAlives serves one proxy: batches both ways by credit.
func (s *Service) KeepAlives(grpc leasev1.Keeper_KeepAlivesServer) error {
	ctx, cancel := context.WithCancelCause(grpc.Context())
	defer cancel(nil)
	st := &stream{
		lane: credit.NewLane(laneLimits(), func(*leasev1.KeepAliveAnswer) int { return answerBytes }),
		fail: cancel,
	}
	defer st.lane.Close()
	// Recv returns at the latest when the handler has returned, so nobody waits for this goroutine.
	go s.receive(grpc, st)
	for {
		batch, err := st.lane.Next(ctx)
		switch {
		case errors.Is(err, credit.ErrClosed):
			return nil
		case err != nil:
			if cause := context.Cause(ctx); errors.Is(cause, errSlow) {
				return errSlow
			}
			return status.FromContextError(err).Err()
		}
		if err := grpc.Send(&leasev1.KeepAliveAnswers{Taken: batch.Taken, Answers: batch.Items}); err != nil {
			return err
		}
	}
}

func (s *Service) receive(grpc leasev1.Keeper_KeepAlivesServer, st *stream) {
	for {
		batch, err := grpc.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				st.lane.Close()
			} else {
				st.fail(err)
			}
			return
		}
		st.lane.Taken(batch.GetTaken())
		if len(batch.GetKeepAlives()) > 0 {
			st.lane.Received()
			s.keepAlives(st, batch.GetKeepAlives())
		}
	}
}

// keepAlives answers a batch that has just arrived.
func (s *Service) keepAlives(st *stream, batch []*leasev1.KeepAlive) {
	answers := make([]leasev1.KeepAliveAnswer, len(batch))
	questions := make([]question, 0, len(batch))
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	parked, over := len(s.parked), false
	for i, keepAlive := range batch {
		answers[i].Id = keepAlive.GetId()
		questions = append(questions, question{
			to: st, answer: &answers[i], lease: keepAlive.GetLease(), ask: keepAlive.GetAsk(), ticket: keepAlive.GetTicket(),
			span: s.keepAliveSpan(keepAlive), until: now + parkedFor,
		})
		over = over || keepAlive.GetAsk() == leasev1.Ask_ASK_RESUME
		s.considerLocked(now, &questions[i])
	}
	s.doubtLocked(questions)
	if over || len(s.parked) > parked {
		signal(s.tickNow) // a stop is to be settled, or a checkpoint to be cleared
	}
	s.mu.Unlock()
	for i := range questions {
		if questions[i].answer.GetOutcome() != leasev1.Outcome_OUTCOME_UNSPECIFIED {
			s.reply(&questions[i])
		}
	}
}

// considerLocked fills in the answer, or has the question wait. The caller holds the lock.
func (s *Service) considerLocked(now time.Duration, q *question) {
	verdict, outcome := s.askLocked(now, q)
	answer := q.answer
	answer.Revision = s.revision
	switch verdict {
	case owner.Known:
		answer.Outcome = outcome
	case owner.NotOwner:
		answer.Outcome, answer.View = leasev1.Outcome_OUTCOME_NOT_OWNER, s.core.View()
	case owner.Unknown:
		if len(s.proofs) >= proofsMax {
			answer.Outcome = leasev1.Outcome_OUTCOME_UNAVAILABLE
			return
		}
		s.proofs = append(s.proofs, q.copy())
		signal(s.readNow)
	case owner.Wait:
		if s.left || len(s.parked) >= parkedMax || now >= q.until {
			answer.Outcome = leasev1.Outcome_OUTCOME_UNAVAILABLE
			return
		}
		s.parked = append(s.parked, q.copy())
	}
}

// askLocked has the core judge a question. The caller holds the lock.
func (s *Service) askLocked(now time.Duration, q *question) (owner.Verdict, leasev1.Outcome) {
	switch q.ask {
	case leasev1.Ask_ASK_STOP:
		verdict, err := s.core.Stop(now, q.lease, q.ticket)
		if err != nil {
			// Not worth more than a line: the proxy asks again, and goes on without at last.
			s.cfg.Logger.Warn("a revoke has to wait", "lease", q.lease, "error", err)
		}
		q.answer.Epoch = s.core.Epoch()
		return verdict, leasev1.Outcome_OUTCOME_DONE
	case leasev1.Ask_ASK_RESUME:
		s.core.Over(now, q.lease, q.ticket)
		return owner.Known, leasev1.Outcome_OUTCOME_DONE
	case leasev1.Ask_ASK_UNSPECIFIED:
	}
	verdict, ttl := s.core.KeepAlive(now, q.lease)
	q.answer.TtlS = ttl
	return verdict, leasev1.Outcome_OUTCOME_RENEWED
}

// copy gives a waiting question a place of its own, with an answer of its own: what it came with is about to be given back.
func (q *question) copy() *question {
	own := *q
	own.answer = &leasev1.KeepAliveAnswer{Id: q.answer.GetId()}
	return &own
}

// doubtLocked takes the acknowledgements back if the right ran out while they were made: the process may have been paused
// anywhere. The caller holds the lock.
func (s *Service) doubtLocked(questions []question) {
	if s.core.Holds(s.cfg.Clock.Now()) {
		return
	}
	for i := range questions {
		switch answer := questions[i].answer; {
		case answer.GetOutcome() == leasev1.Outcome_OUTCOME_RENEWED, // and a stop that others do not know of:
			answer.GetOutcome() == leasev1.Outcome_OUTCOME_DONE && questions[i].ask == leasev1.Ask_ASK_STOP:
			answer.Outcome, answer.TtlS = leasev1.Outcome_OUTCOME_UNAVAILABLE, 0
		}
	}
}

// revisitLocked looks at the parked keepalives again. The caller holds the lock.
func (s *Service) revisitLocked(now time.Duration) {
	if len(s.parked) == 0 {
		return
	}
	waiting := s.parked
	s.parked = make([]*question, 0, len(waiting))
	position, _ := s.core.Sequence()
	for _, q := range waiting {
		switch {
		case s.left || now >= q.until:
			q.answer.Outcome, q.answer.Revision = leasev1.Outcome_OUTCOME_UNAVAILABLE, s.revision
		case q.after > position:
			s.parked = append(s.parked, q)
			continue
		default:
			s.considerLocked(now, q)
			again := []question{*q}
			s.doubtLocked(again)
		}
		if q.answer.GetOutcome() != leasev1.Outcome_OUTCOME_UNSPECIFIED {
			s.reply(q)
		}
	}
}

// reply sends an answer; it never waits.
func (s *Service) reply(q *question) {
	s.cfg.Metrics.keepAlive(q.answer.GetOutcome())
	if q.span != nil {
		q.span.SetAttributes(attribute.String("holdfast.lease.outcome", q.answer.GetOutcome().String()))
		q.span.End()
	}
	q.to.put(q.answer)
}

// keepAliveSpan begins the span of a traced keepalive; nil for the others, which cost nothing.
func (s *Service) keepAliveSpan(keepAlive *leasev1.KeepAlive) trace.Span {
	if len(keepAlive.GetSpanContext()) == 0 {
		return nil
	}
	parent := telemetry.DecodeSpanContext(keepAlive.GetSpanContext())
	if !parent.IsSampled() {
		return nil
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	attributes := trace.WithAttributes(attribute.Int64("holdfast.lease.id", keepAlive.GetLease()))
	name := "keepalive"
	if keepAlive.GetAsk() == leasev1.Ask_ASK_STOP {
		name = "stop keepalives"
	}
	_, span := s.cfg.Tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer), attributes) //nolint:spancheck // reply ends it
	return span                                                                                    //nolint:spancheck // as above
}
