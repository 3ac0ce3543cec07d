package keeper

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfastdb/holdfast/lease-service/internal/follow"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

const (
	// patience is how long a missing change may still be on its way before the table is read.
	patience   = 150 * time.Millisecond
	repairLook = 50 * time.Millisecond
	// pageMax is how many leases a page of the table has.
	pageMax     = 10_000
	pageTimeout = 2 * time.Second
)

// runRepairs reads the lease table at the start and whenever changes are missing, until the context ends.
func (s *Service) runRepairs(ctx context.Context) error {
	ticker := s.cfg.Clock.NewTicker(repairLook)
	defer ticker.Stop()
	for {
		if s.needsTable() {
			err := s.readTable(ctx)
			if err == nil {
				s.cfg.Metrics.tables.WithLabelValues("read").Inc()
			} else if ctx.Err() == nil {
				s.cfg.Metrics.tables.WithLabelValues("failed").Inc()
				s.cfg.Logger.DebugContext(ctx, "lease table not read", "error", err)
			}
		}
		select {
		case <-ticker.C():
		case <-s.fixNow:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) needsTable() bool {
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.followedLocked(now)
	_, loaded := s.follower.Position()
	return !loaded || s.behind && now-s.behindSince >= patience
}

// readTable reads the whole table and takes it in.
func (s *Service) readTable(ctx context.Context) error {
	s.mu.Lock()
	build, least := s.follower.Begin(), s.follower.Head()
	s.mu.Unlock()
	for !build.Done() {
		page, err := s.readPage(ctx, build.After(), least)
		if err != nil {
			s.mu.Lock()
			s.follower.Abandon()
			s.mu.Unlock()
			return err
		}
		build.Add(page)
	}
	// A source that made a table necessary has earned no trust.
	s.source.drop()
	now := s.cfg.Clock.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	table, changes, ok := s.follower.Finish(nil)
	if table != nil {
		s.take(now, table)
	}
	s.applyLocked(now, changes)
	s.followedLocked(now)
	if !ok {
		return fmt.Errorf("keeper: the changes between the pages of the table are not at hand")
	}
	return nil
}

// take hands a table to the core. The caller holds the lock.
func (s *Service) take(now time.Duration, table *follow.Table) {
	epoch := s.core.Epoch()
	events := s.core.Load(now, table.Sequence, table.View, table.Leases, nil)
	s.announceLocked(events)
	if s.core.Epoch() != epoch {
		signal(s.beatNow)
	}
	s.cfg.Logger.Info("lease table read", "sequence", table.Sequence, "leases", s.core.Known(), "owned", s.core.Owned(), "epoch", s.core.Epoch(),
		"memory_bytes", s.core.Bytes())
	s.changedLocked(now)
}

func (s *Service) readPage(ctx context.Context, after int64, least uint64) (*consensusv1.LeaseTableResponse, error) {
	node, err := s.cfg.Tier.Node()
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.cfg.Tier.Ask(ctx, node, pageTimeout)
	defer cancel()
	page, err := node.LeaseTable(bounded, &consensusv1.LeaseTableRequest{AfterId: after, Limit: pageMax, MinSequence: least})
	if err != nil {
		s.blame(ctx, node)
		return nil, fmt.Errorf("keeper: read the lease table at %s: %w", node.Address, err)
	}
	return page, nil
}
