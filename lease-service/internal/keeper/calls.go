package keeper

import (
	"context"

	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

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
