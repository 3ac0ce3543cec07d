package lease

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
)

// askAgain is the wait between attempts to reach an owner.
const askAgain = 50 * time.Millisecond

// revoking is one client's revoke on its way.
type revoking struct {
	service *Service
	call    *calls.Call
	lease   int64
	// ticket tells the owner which revoke this is: it hears of one again if an answer was lost.
	ticket uint64
	// stopped is who was asked last to acknowledge nothing, if anybody was. epoch is the latest under whose view nobody acknowledges any more.
	stopped *instance
	epoch   uint64
}

// Revoke stops the owner's acknowledgements, then has the lease revoked, and tells the owner if that came to nothing. call is the
// client's, of class Write. A lease that the owner proves not to exist is not revoked, so that one which is granted meanwhile does not end
// behind its owner's back. The consensus tier is asked to revoke the lease 0 then, which there never is: its answer is etcd's "requested
// lease not found", or what it has against the call before it looks for any lease, such as an alarm.
func (s *Service) Revoke(ctx context.Context, call *calls.Call) (*consensusv1.Answer, error) {
	var request pb.LeaseRevokeRequest
	if err := proto.Unmarshal(call.Request, &request); err != nil {
		return nil, malformed(err)
	}
	r := &revoking{service: s, call: call, lease: request.GetID(), ticket: rand.Uint64()}
	switch err := r.stop(ctx); {
	case errors.Is(err, errAbsent):
		none := *call
		none.Request = nil
		return s.caller.Do(ctx, &none)
	case err != nil:
		r.resume() //nolint:contextcheck // streams to instances are shared and outlive this call
		return nil, err
	}
	answer, err := s.caller.Do(ctx, call)
	switch {
	case err == nil:
		r.follow(ctx, answer.GetLeaseEpoch())
	case settled(err):
		r.resume() //nolint:contextcheck // as above
	}
	return answer, err
}

// follow comes after a revoke that was carried out under an epoch, or an earlier one. If the owner was stopped under another, the lease has
// moved, and its owner of then may not know yet that it is gone: it is stopped too, before the client hears of its revoke. What is told to it
// as a revoke that came to nothing ends the stop as soon as its table has come so far. Within the removal time it comes to that by itself.
func (r *revoking) follow(ctx context.Context, epoch uint64) {
	ctx, cancel := context.WithTimeout(ctx, r.service.removal)
	defer cancel()
	for r.epoch < epoch && ctx.Err() == nil {
		if r.stop(ctx) != nil {
			return // it does not know the lease
		}
		r.resume() //nolint:contextcheck // streams to instances are shared and outlive this call
		if r.epoch < epoch {
			select {
			case <-time.After(askAgain):
			case <-ctx.Done():
			}
		}
	}
}

// settled tells whether a revoke that failed so did not happen and is not under way: it was refused, or found nothing. An error that
// leaves that open leaves the stop to the owner, which finds out later.
func settled(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.ResourceExhausted, codes.DataLoss, codes.FailedPrecondition, codes.InvalidArgument,
		codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	case codes.Unavailable:
		return status.Convert(err).Message() == rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)
	default:
		return false
	}
}

// errAbsent says that the owner proved by a read that there is no such lease. Nothing was stopped then.
var errAbsent = errors.New("lease: no such lease")

// stop returns when the owner has promised to acknowledge nothing for the lease, when nobody may acknowledge (any more), with
// errAbsent, or with the error of the client's context.
func (r *revoking) stop(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, r.service.removal)
	defer cancel()
	for {
		epoch := r.service.topology.Table().View.GetEpoch()
		to, err := r.service.instances.owner(r.lease)
		if errors.Is(err, errNoInstance) {
			r.epoch = max(r.epoch, epoch)
			return nil
		}
		switch r.stopAt(bounded, to) {
		case leasev1.Outcome_OUTCOME_DONE:
			return nil
		case leasev1.Outcome_OUTCOME_NOT_FOUND:
			return errAbsent
		case leasev1.Outcome_OUTCOME_UNSPECIFIED, leasev1.Outcome_OUTCOME_RENEWED, leasev1.Outcome_OUTCOME_NOT_OWNER,
			leasev1.Outcome_OUTCOME_UNAVAILABLE:
		}
		select {
		case <-time.After(askAgain):
			continue
		case <-bounded.Done():
		}
		if err := ctx.Err(); err != nil {
			return status.FromContextError(err).Err()
		}
		r.epoch = max(r.epoch, epoch) // under which nobody acknowledges any more
		r.service.log.Warn("lease owner not reached, revoking after the removal time", "lease", r.lease, "owner", to.name)
		return nil
	}
}

// stopAt asks one instance to stop.
func (r *revoking) stopAt(ctx context.Context, to instance) leasev1.Outcome {
	stream, err := r.service.instances.stream(to) //nolint:contextcheck // streams to instances are shared and outlive this call
	if err != nil {
		return leasev1.Outcome_OUTCOME_UNAVAILABLE
	}
	// Whatever comes of it: the instance may have heard it.
	r.stopped = &to
	answered := make(verdict, 1)
	id, err := stream.Go(&leasev1.KeepAlive{
		Lease: r.lease, Ask: leasev1.Ask_ASK_STOP, Ticket: r.ticket, SpanContext: r.call.SpanContext,
	}, keepAliveBytes, answered)
	if err != nil {
		return leasev1.Outcome_OUTCOME_UNAVAILABLE
	}
	select {
	case answer := <-answered:
		if answer.GetOutcome() == leasev1.Outcome_OUTCOME_DONE {
			r.epoch = cmp.Or(max(r.epoch, answer.GetEpoch()), math.MaxUint64) // one of an older version tells none
		}
		if answer.GetOutcome() == leasev1.Outcome_OUTCOME_NOT_OWNER {
			r.service.topology.Viewed(answer.GetView())
		}
		return answer.GetOutcome()
	case <-ctx.Done():
		stream.Cancel(id)
		return leasev1.Outcome_OUTCOME_UNAVAILABLE
	}
}

// resume tells who stopped that nothing comes of it. If it does not hear that, it finds out by itself, later.
func (r *revoking) resume() {
	if r.stopped == nil {
		return
	}
	stream, err := r.service.instances.stream(*r.stopped)
	if err != nil {
		return
	}
	_, _ = stream.Go(&leasev1.KeepAlive{Lease: r.lease, Ask: leasev1.Ask_ASK_RESUME, Ticket: r.ticket}, keepAliveBytes, make(verdict, 1))
}

// verdict waits for one answer; a stream that ended gives nil. It holds one.
type verdict chan *leasev1.KeepAliveAnswer

// Done implements batch.Waiter.
func (v verdict) Done(answer *leasev1.KeepAliveAnswer, _ error) { v <- answer }
