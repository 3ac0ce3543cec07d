package keeper

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/holdfastdb/holdfast/lease-service/internal/follow"
	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	"github.com/holdfastdb/holdfast/lease-service/internal/tier"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

// Config is what a Service needs.
type Config struct {
	// Instance is this start of the instance.
	Instance *feedv1.Instance
	Tier     *tier.Tier
	// Bus carries the feed and takes the lease events; nil: direct streams alone, and no events.
	Bus   bus.Bus
	Clock clock.Clock
	// Drift bounds how far the rates of two clocks differ.
	Drift   ownership.Drift
	Logger  *slog.Logger
	Tracer  trace.Tracer
	Metrics *Metrics
}

// Service serves Keeper. Make one with New.
type Service struct {
	leasev1.UnimplementedKeeperServer
	cfg Config

	mu       sync.Mutex
	core     *owner.Core
	follower follow.Follower
	// behindSince is since when the follower misses something without progress from behindAt; both count while behind.
	behind      bool
	behindSince time.Duration
	behindAt    uint64
	// revision is the highest head revision that the feed told.
	revision int64
	// parked are keepalives that wait for a change, proofs those that wait for a read.
	parked, proofs []*question
	// deciding tells that a call of ExpireLeases is under way; the others tell of reads and of calls of CheckpointLeases.
	deciding, settling, clearing, recording bool
	pacing                                  pace

	left   bool
	served bool

	source  source
	work    sync.WaitGroup
	beatNow chan struct{}
	tickNow chan struct{}
	readNow chan struct{}
	fixNow  chan struct{}
}

// New makes a Service; nothing runs yet.
func New(cfg Config) *Service {
	signal := func() chan struct{} { return make(chan struct{}, 1) }
	s := &Service{
		cfg: cfg, core: owner.New(cfg.Instance, checkpointEvery, cfg.Drift), pacing: pace{leases: decisionLeast},
		beatNow: signal(), tickNow: signal(), readNow: signal(), fixNow: signal(),
	}
	cfg.Metrics.observe(s)
	return s
}

// Parts are the service's work in the order of its start.
func (s *Service) Parts() []lifecycle.Part {
	return []lifecycle.Part{
		{Name: "lease feed", Run: s.runFeed},
		{Name: "lease table", Run: s.runRepairs},
		{Name: "keepalive proofs", Run: s.runProofs},
		{Name: "lease expiry", Run: s.runTicks},
		{Name: "heartbeats", Run: s.runHeartbeats, Stop: s.leave},
	}
}

// Serving tells whether the instance is in the view and may acknowledge keepalives.
func (s *Service) Serving() bool {
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Serving(now)
}

// View is the newest view known, or nil. It is shared and must not be changed.
func (s *Service) View() *feedv1.View {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.View()
}

// changedLocked looks at the parked keepalives again. The caller holds the lock.
func (s *Service) changedLocked(now time.Duration) {
	s.revisitLocked(now)
	if serving := s.core.Serving(now); serving != s.served {
		s.served = serving
		s.cfg.Logger.Info("right to acknowledge keepalives", "held", serving, "epoch", s.core.Epoch(), "owned", s.core.Owned())
	}
}

// signal wakes a loop; one that is awake already looks once more.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits, or until the context ends.
func (s *Service) pause(ctx context.Context, d time.Duration) {
	timer := s.cfg.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
	case <-ctx.Done():
	}
}
