package app

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/consensus-node/internal/compactor"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/quota"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// SpaceConfig says how much a member stores and when history is dropped, in etcd's flags.
type SpaceConfig struct {
	// QuotaBytes is the flag: 0 means etcd's default, negative none.
	QuotaBytes       int64
	CompactMode      *config.Choice
	CompactRetention string
	// CompactBatch and CompactSleep pace the physical part of a compaction.
	CompactBatch uint
	CompactSleep time.Duration

	retention int64 // what CompactRetention means
}

func newSpaceConfig() SpaceConfig {
	return SpaceConfig{CompactMode: config.NewChoice(string(compactor.Periodic), string(compactor.Revision))}
}

func (c *SpaceConfig) declare(set *config.Set) {
	set.Group("Space", func(f *pflag.FlagSet) {
		f.Int64Var(&c.QuotaBytes, "quota-backend-bytes", 0, "bytes in use from which on writes are refused (0: 2 GiB, negative: no bound)")
		f.Var(c.CompactMode, "auto-compaction-mode", "what --auto-compaction-retention counts: \"periodic\" time or \"revision\" numbers")
		f.StringVar(&c.CompactRetention, "auto-compaction-retention", "0", "history to keep, as hours, a duration such as 30m, or revisions (0: all)")
		f.UintVar(&c.CompactBatch, "compaction-batch-limit", node.DefaultCompactBatch, "most revisions dropped in one step of a compaction")
		f.DurationVar(&c.CompactSleep, "compaction-sleep-interval", node.DefaultCompactSleep, "rest between two steps of a compaction")
	})
}

func (c *SpaceConfig) finish() error {
	var err error
	if c.retention, err = compactor.ParseRetention(compactor.Mode(c.CompactMode.String()), c.CompactRetention); err != nil {
		return failure.New(failure.Config, fmt.Sprintf("--auto-compaction-retention: %v", err))
	}
	if c.CompactSleep < 0 {
		return failure.New(failure.Config, fmt.Sprintf("--compaction-sleep-interval is %v: it must not be negative", c.CompactSleep))
	}
	return nil
}

// unboundedMapBytes is the address space of a database without a quota: 256 GiB. It costs nothing until it is used; a file that
// fills three quarters of it raises the alarm, and the next start maps twice the file.
const unboundedMapBytes = 256 << 30

// mapBytes is the address space that the database may grow into: twice the quota, so that deletions, revocations and pages that
// readers hold have room when the quota is used up.
func (c *SpaceConfig) mapBytes() int {
	bytes := quota.Bytes(c.QuotaBytes)
	if bytes < 0 {
		return unboundedMapBytes
	}
	const boundMax = 1 << 46 // of address space
	return max(store.DefaultMapBytes, int(2*min(bytes, boundMax)))
}

// warn logs what an operator should know of the settings.
func (c *SpaceConfig) warn(log *slog.Logger) {
	if c.QuotaBytes > quota.SuggestedMaxBytes {
		log.Warn("quota exceeds the maximum value that etcd suggests", "quota_bytes", c.QuotaBytes, "suggested_max_bytes", int64(quota.SuggestedMaxBytes))
	}
}

// diskReserve is the free space below which the disk counts as full: one segment of the log, and as much again for the database and
// for what deletes and compacts until there is room. A disk that has run out ends the node.
func (c *Config) diskReserve() int64 {
	segment := c.logSegmentBytes
	if segment == 0 {
		segment = wal.DefaultSegmentBytes
	}
	return 2 * segment
}

// freeBytes is the free space of the data directory's disk.
func (c *Config) freeBytes() (int64, error) {
	if c.diskFree != nil {
		return c.diskFree()
	}
	return vfs.OS{}.FreeBytes(c.DataDir)
}
