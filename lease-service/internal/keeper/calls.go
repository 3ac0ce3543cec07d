package keeper

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

// Stop makes leases refuse keepalives until their revoke is known to have happened or to have come to nothing. It waits while
// an expiry of one of them is under way: an expiry that arrives late could otherwise meet a lease granted anew.
//
// If none of the leases exists, which a read proves that began after the call arrived, the error is NotFound and nothing is
// stopped. The revoke must not be proposed then: it would leave no trace in the lease sequence to end a stop by, and a lease
// granted under the id in the meantime would be renewed here until that lease's own revoke is heard of.
func (s *Service) Stop(ctx context.Context, request *leasev1.StopRequest) (*leasev1.StopResponse, error) {
	if s.proveAbsent(ctx, request.GetLeases()) {
		return nil, errNoLease
	}
	for {
		now := s.cfg.Clock.Now()
		s.mu.Lock()
		notOwned, pending, err := s.core.Stop(now, request.GetLeases())
		view, changed, left := s.core.View(), s.changed, s.left
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, status.Error(codes.ResourceExhausted, err.Error())
		case left:
			return nil, errLeft
		case !pending:
			response := &leasev1.StopResponse{NotOwned: notOwned}
			if len(notOwned) > 0 {
				response.View = view
			}
			return response, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// errNoLease says that the leases of a call are proved not to exist.
var errNoLease = status.Error(codes.NotFound, "lease-service: no such lease")

// proveAbsent tells whether none of the leases exists: the table lacks them all and a read confirms it. Without an answer to the
// read they may exist.
func (s *Service) proveAbsent(ctx context.Context, leases []int64) bool {
	now := s.cfg.Clock.Now()
	known := len(leases) == 0
	s.mu.Lock()
	for _, id := range leases {
		verdict, _ := s.core.Remaining(now, id)
		known = known || verdict != owner.Unknown
	}
	s.mu.Unlock()
	if known {
		return false
	}
	read, err := s.read(ctx, leases)
	return err == nil && !slices.ContainsFunc(read.GetTtlS(), func(ttlS int64) bool { return ttlS > 0 })
}

// errLeft ends calls to an instance that gave its leases up.
var errLeft = status.Error(codes.Unavailable, "lease-service: the instance is leaving")

// Remaining tells the rest of leases. One that is not known is proved not to exist by a read.
func (s *Service) Remaining(ctx context.Context, request *leasev1.RemainingRequest) (*leasev1.RemainingResponse, error) {
	now := s.cfg.Clock.Now()
	response := &leasev1.RemainingResponse{Remaining: make([]*leasev1.Remaining, len(request.GetLeases()))}
	var unknown []int64
	var places []int
	s.mu.Lock()
	for i, id := range request.GetLeases() {
		verdict, rest := s.core.Remaining(now, id)
		response.Remaining[i] = &leasev1.Remaining{Lease: id, Outcome: outcomeOf(verdict), RemainingTtlS: rest}
		if verdict == owner.Unknown {
			unknown, places = append(unknown, id), append(places, i)
		}
	}
	s.mu.Unlock()
	if len(unknown) == 0 {
		return response, nil
	}
	read, err := s.read(ctx, unknown)
	if err != nil {
		return response, nil //nolint:nilerr // the answer says per lease that it is not known now
	}
	for i, place := range places {
		if read.GetTtlS()[i] == 0 {
			response.Remaining[place].Outcome = leasev1.Outcome_OUTCOME_NOT_FOUND
		}
	}
	return response, nil
}

// outcomeOf is what a verdict means to a proxy; what is not known yet is asked again.
func outcomeOf(verdict owner.Verdict) leasev1.Outcome {
	switch verdict {
	case owner.Known:
		return leasev1.Outcome_OUTCOME_RENEWED
	case owner.NotOwner:
		return leasev1.Outcome_OUTCOME_NOT_OWNER
	case owner.Unknown, owner.Wait:
	}
	return leasev1.Outcome_OUTCOME_UNAVAILABLE
}
