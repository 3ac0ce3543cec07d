package keeper

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/follow"
	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
)

const (
	// feedVersion is the format version of the feed that is spoken here.
	feedVersion = 1
	// silence is how long a source may say nothing before another is used; it speaks ten times as often.
	silence    = time.Second
	sourceLook = 250 * time.Millisecond
	feedRetry  = 100 * time.Millisecond
)

// LeasesSubject is where the changes of a cluster's leases are published, without those of its keys.
func LeasesSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.leases", clusterID) }

// source is where changes come from.
type source struct {
	mu sync.Mutex
	// bus and direct are when each last spoke.
	bus, direct time.Duration
	// stop ends the direct stream of the moment, nil if there is none.
	stop context.CancelFunc
}

// drop ends the direct stream of the moment, so that the next one is to another node.
func (f *source) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stop != nil {
		f.stop()
	}
}

// runFeed follows the bus, and a node directly while the bus is silent, until the context ends.
func (s *Service) runFeed(ctx context.Context) error {
	cluster, ok := s.awaitCluster(ctx)
	if !ok {
		return nil
	}
	if s.cfg.Bus != nil {
		subscription, err := s.cfg.Bus.Subscribe(LeasesSubject(cluster), s.fromBus, func(bus.Cause) { signal(s.fixNow) })
		if err != nil {
			return fmt.Errorf("keeper: subscribe to changes: %w", err)
		}
		defer func() { _ = subscription.Unsubscribe() }() // the bus is about to be closed
	}
	ticker := s.cfg.Clock.NewTicker(sourceLook)
	defer ticker.Stop()
	var direct sync.WaitGroup
	defer direct.Wait()
	var end context.CancelFunc
	for {
		now := s.cfg.Clock.Now()
		s.source.mu.Lock()
		silent := s.cfg.Bus == nil || now-s.source.bus > silence
		stuck := end != nil && now-s.source.direct > silence
		s.source.mu.Unlock()
		switch {
		case silent && end == nil:
			var streaming context.Context
			streaming, end = context.WithCancel(ctx)
			direct.Go(func() { s.streamDirectly(streaming) })
		case !silent && end != nil:
			end()
			end = nil
		case stuck:
			s.source.drop()
		}
		select {
		case <-ticker.C():
		case <-ctx.Done():
			if end != nil {
				end()
			}
			return nil
		}
	}
}

// awaitCluster waits until a node has told which cluster this is.
func (s *Service) awaitCluster(ctx context.Context) (uint64, bool) {
	for {
		cluster, changed := s.cfg.Tier.Cluster()
		if cluster != 0 {
			return cluster, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// decode gives what is of interest here: not the changes of keys.
func decode(message bus.Message) (*feedv1.Message, error) {
	if message.Value != nil {
		return bus.Decode[feedv1.Message](message)
	}
	return follow.Decode(message.Payload)
}

func (s *Service) fromBus(message bus.Message) {
	decoded, err := decode(message)
	if err != nil {
		s.cfg.Logger.Warn("a message on the bus was not understood", "error", err)
		return
	}
	if s.follow(decoded) {
		s.source.mu.Lock()
		s.source.bus = s.cfg.Clock.Now()
		s.source.mu.Unlock()
	}
}

// streamDirectly follows one node after the other until the context ends.
func (s *Service) streamDirectly(ctx context.Context) {
	for ctx.Err() == nil {
		s.streamOnce(ctx)
		s.pause(ctx, feedRetry)
	}
}

func (s *Service) streamOnce(ctx context.Context) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.source.mu.Lock()
	s.source.stop, s.source.direct = cancel, s.cfg.Clock.Now()
	s.source.mu.Unlock()
	stream, err := node.Feed(ctx, &consensusv1.FeedRequest{Name: s.cfg.Instance.GetName()})
	for err == nil {
		var message *feedv1.Message
		if message, err = stream.Recv(); err == nil && s.follow(message) {
			s.source.mu.Lock()
			s.source.direct = s.cfg.Clock.Now()
			s.source.mu.Unlock()
		}
	}
	s.cfg.Logger.DebugContext(ctx, "feed stream ended", "node", node.Address, "error", err)
}

// follow takes in a feed message that has just arrived and tells whether it is one of this cluster and version.
func (s *Service) follow(message *feedv1.Message) bool {
	cluster, _ := s.cfg.Tier.Cluster()
	if message.GetVersion() != feedVersion || message.GetClusterId() != cluster {
		return false
	}
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = max(s.revision, message.GetHeadRevision())
	s.follower.Told(message.GetLeaseSequence())
	if len(message.GetLeaseChanges()) > 0 {
		s.applyLocked(now, s.follower.Accept(message.GetLeaseChanges(), nil))
	}
	s.followedLocked(now)
	return true
}

// applyLocked hands changes to the core and announces what follows from them. The caller holds the lock.
func (s *Service) applyLocked(now time.Duration, changes []*feedv1.LeaseChange) {
	if len(changes) == 0 {
		return
	}
	epoch := s.core.Epoch()
	var events []owner.Event
	for _, change := range changes {
		var err error
		if events, err = s.core.Apply(now, change, events); err != nil {
			// The follower and the core went apart, which is a mistake of this program: begin anew with a table.
			s.cfg.Logger.Error("lease changes out of sequence", "error", err)
			s.follower = follow.Follower{}
			signal(s.fixNow)
			break
		}
	}
	if s.core.Epoch() != epoch {
		s.cfg.Logger.Info("lease view changed", "epoch", s.core.Epoch(), "instances", len(s.core.View().GetInstances()), "owned", s.core.Owned())
		signal(s.beatNow)
	}
	s.announceLocked(events)
	s.changedLocked(now)
}

// followedLocked notes since when something is missing without any progress. The caller holds the lock.
func (s *Service) followedLocked(now time.Duration) {
	behind := s.follower.Behind()
	position, _ := s.follower.Position()
	if behind && (!s.behind || position != s.behindAt) {
		s.behindSince, s.behindAt = now, position
	}
	s.behind = behind
}
