package keeper

import (
	"context"
	"time"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// checkpointEvery is how much of a lease that nobody renews may pass until the consensus tier is told what is left: after a takeover it
// lives longer by no more than that, and by the removal time. It is etcd's.
const checkpointEvery = 5 * time.Minute

// checkpointsLocked begins the recording of rests and the clearing of those that keepalives wait for, one call of each at a time.
// The caller holds the lock.
func (s *Service) checkpointsLocked(ctx context.Context, now time.Duration) {
	if !s.clearing {
		if epoch, ids := s.core.Clears(decisionMax); len(ids) > 0 {
			s.clearing = true
			request := s.checkpoints(epoch)
			for _, id := range ids {
				request.Checkpoints = append(request.Checkpoints, &feedv1.LeaseCheckpoint{Id: id})
			}
			s.work.Go(func() { s.checkpoint(ctx, request, "cleared", &s.clearing) })
		}
	}
	if !s.recording {
		if epoch, sequence, rests := s.core.Rests(now, decisionMax); len(rests) > 0 {
			s.recording = true
			request := s.checkpoints(epoch)
			request.Checkpoints, request.DecidedSequence = rests, sequence
			s.work.Go(func() { s.checkpoint(ctx, request, "recorded", &s.recording) })
		}
	}
}

func (s *Service) checkpoints(epoch uint64) *consensusv1.CheckpointLeasesRequest {
	return &consensusv1.CheckpointLeasesRequest{
		Epoch: epoch, Name: s.cfg.Instance.GetName(), Incarnation: s.cfg.Instance.GetIncarnation(),
	}
}

// checkpoint makes one call. What came of it is told by the lease sequence: keepalives wait for that, and a rest that did not get into
// the table, or may still, is recorded again when it is due again.
func (s *Service) checkpoint(ctx context.Context, request *consensusv1.CheckpointLeasesRequest, what string, underWay *bool) {
	sequence, err := s.checkpointOnce(ctx, request)
	if err != nil {
		what = "failed"
		s.cfg.Logger.DebugContext(ctx, "checkpoints not recorded or cleared", "leases", len(request.GetCheckpoints()), "error", err)
	}
	s.cfg.Metrics.checkpoints.WithLabelValues(what).Add(float64(len(request.GetCheckpoints())))
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	*underWay = false
	s.follower.Told(sequence)
	s.followedLocked(now)
}

func (s *Service) checkpointOnce(ctx context.Context, request *consensusv1.CheckpointLeasesRequest) (sequence uint64, err error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return 0, err
	}
	bounded, cancel := s.cfg.Tier.Ask(ctx, node, proposeTimeout)
	defer cancel()
	response, err := node.CheckpointLeases(bounded, request)
	if err != nil {
		s.blame(ctx, node)
		return 0, err
	}
	return response.GetSequence(), nil
}
