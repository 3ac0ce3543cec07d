package keeper

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	"github.com/holdfastdb/holdfast/lease-service/internal/tier"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// The times of heartbeats: with the removal time of 2 s three may be lost in a row.
const (
	beatEvery   = 500 * time.Millisecond
	beatRetry   = 100 * time.Millisecond
	beatTimeout = time.Second
	// leaveMax bounds the attempts to say farewell: after that the others have waited out the removal time.
	leaveMax = 2 * time.Second
)

// runHeartbeats confirms the instance again and again until the context ends.
func (s *Service) runHeartbeats(ctx context.Context) error {
	timer := s.cfg.Clock.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C():
		case <-s.beatNow:
		case <-ctx.Done():
			return nil
		}
		if s.beat(ctx) {
			timer.Reset(beatEvery)
		} else {
			timer.Reset(beatRetry)
		}
	}
}

// beat sends one heartbeat and tells whether it was confirmed, or need not be any more.
func (s *Service) beat(ctx context.Context) bool {
	s.mu.Lock()
	left := s.left
	s.mu.Unlock()
	if left {
		return true
	}
	// The right counts from before the sending: how long the answer was on its way is unknown.
	sent := s.cfg.Clock.Now()
	response, err := s.heartbeat(ctx, false)
	now := s.cfg.Clock.Now()
	if err != nil {
		s.cfg.Metrics.heartbeats.WithLabelValues("failed").Inc()
		s.cfg.Logger.DebugContext(ctx, "heartbeat failed", "error", err)
		return false
	}
	s.cfg.Metrics.heartbeats.WithLabelValues("confirmed").Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follower.Told(response.GetSequence())
	s.core.Confirmed(now, ownership.Confirmation{
		Sent: sent, View: response.GetView(), Sequence: response.GetSequence(),
		Removal: time.Duration(response.GetRemovalMs()) * time.Millisecond,
	})
	s.followedLocked(now)
	s.changedLocked(now)
	return true
}

func (s *Service) heartbeat(ctx context.Context, leave bool) (*consensusv1.LeaseHeartbeatResponse, error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.cfg.Tier.Ask(ctx, node, beatTimeout)
	defer cancel()
	response, err := node.LeaseHeartbeat(bounded, &consensusv1.LeaseHeartbeatRequest{
		Instance: proto.CloneOf(s.cfg.Instance), Leave: leave,
	})
	if err != nil {
		s.blame(ctx, node)
		return nil, fmt.Errorf("keeper: heartbeat to %s: %w", node.Address, err)
	}
	return response, nil
}

// blame has another node asked next, unless it was the caller who gave up.
func (s *Service) blame(ctx context.Context, node tier.Node) {
	if ctx.Err() == nil {
		s.cfg.Tier.Blame(node)
	}
}

// leave stops acknowledging and then tells the consensus tier so, which gives the leases to others at once. If it cannot be
// reached in time, the others wait out the removal time.
func (s *Service) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leaveMax)
	defer cancel()
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	s.left = true
	s.core.Leave()
	s.changedLocked(now)
	s.mu.Unlock()
	for ctx.Err() == nil {
		response, err := s.heartbeat(ctx, true)
		if err == nil && !s.present(response) {
			return nil
		}
		s.pause(ctx, beatRetry)
	}
	s.cfg.Logger.Warn("left without being heard: others take the leases over after the removal time")
	return nil
}

func (s *Service) present(response *consensusv1.LeaseHeartbeatResponse) bool {
	for _, instance := range response.GetView().GetInstances() {
		if instance.GetName() == s.cfg.Instance.GetName() && instance.GetIncarnation() == s.cfg.Instance.GetIncarnation() {
			return true
		}
	}
	return false
}
