package keeper

import (
	"context"
	"fmt"
	"time"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
)

const (
	readTimeout = time.Second
	// readsMax bounds the ids of one read.
	readsMax = 4096
)

// runProofs reads the leases that nobody here knows, all that wait in one call, until the context ends.
func (s *Service) runProofs(ctx context.Context) error {
	for {
		select {
		case <-s.readNow:
		case <-ctx.Done():
			return nil
		}
		for s.prove(ctx) {
		}
	}
}

// prove settles the questions that wait for a read and tells whether there may be more.
func (s *Service) prove(ctx context.Context) bool {
	s.mu.Lock()
	n := min(len(s.proofs), readsMax)
	questions := s.proofs[:n:n]
	s.proofs = s.proofs[n:]
	s.mu.Unlock()
	if n == 0 || ctx.Err() != nil {
		return false
	}
	ids := make([]int64, n)
	for i, q := range questions {
		ids[i] = q.lease
	}
	// All of these questions arrived before the read begins, so what it does not find did not exist.
	response, err := s.read(ctx, ids)
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range questions {
		q.answer.Revision = s.revision
		switch {
		case err != nil:
			q.answer.Outcome = leasev1.Outcome_OUTCOME_UNAVAILABLE
		case response.GetTtlS()[i] == 0:
			q.answer.Outcome = leasev1.Outcome_OUTCOME_NOT_FOUND
		case len(s.parked) >= parkedMax:
			q.answer.Outcome = leasev1.Outcome_OUTCOME_UNAVAILABLE
		default:
			// It exists: the table is behind.
			q.after, q.until = response.GetSequence(), now+parkedFor
			s.parked = append(s.parked, q)
			continue
		}
		s.reply(q)
	}
	if err == nil {
		s.follower.Told(response.GetSequence())
		s.followedLocked(now)
		s.revisitLocked(now)
	}
	return true
}

// read says which leases exist, at a read index taken after this call.
func (s *Service) read(ctx context.Context, ids []int64) (*consensusv1.ReadLeasesResponse, error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.cfg.Tier.Ask(ctx, node, readTimeout)
	defer cancel()
	response, err := node.ReadLeases(bounded, &consensusv1.ReadLeasesRequest{Ids: ids})
	if err == nil && len(response.GetTtlS()) != len(ids) {
		err = fmt.Errorf("keeper: %d answers to %d leases", len(response.GetTtlS()), len(ids))
	}
	if err != nil {
		s.blame(ctx, node)
		return nil, fmt.Errorf("keeper: read leases at %s: %w", node.Address, err)
	}
	return response, nil
}
