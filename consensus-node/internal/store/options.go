package store

import (
	"log/slog"
	"time"
)

// Defaults of Options. Operations are etcd's, and so is the map on Linux. The
// interval is five times etcd's: nobody waits for a commit, the log has the
// same changes, and each one costs two syncs that those of the log wait for.
const (
	DefaultMapBytes        = 10 << 30
	DefaultCommitInterval  = 500 * time.Millisecond
	DefaultCommitOps       = 10_000
	DefaultCommitBytes     = 8 << 20
	DefaultMaxPendingBytes = 64 << 20
	DefaultLockTimeout     = time.Second
)

// Options of a Store. The zero value of each field means its default.
type Options struct {
	// MapBytes is the least address space to map. The map is never moved, so
	// the file cannot outgrow it while open; at Open it is at least twice the
	// file's size. At least 64 KiB.
	MapBytes int
	// CommitInterval is how long a change waits for others before it is
	// committed, counted from the first of them.
	CommitInterval time.Duration
	// CommitOps and CommitBytes commit earlier.
	CommitOps   int
	CommitBytes int
	// MaxPendingBytes is how much Apply takes ahead of the disk before it
	// blocks. One batch may exceed it.
	MaxPendingBytes int
	// LockTimeout is how long Open waits for another process to let go of the
	// file before it returns ErrInUse.
	LockTimeout time.Duration
	// NoSync leaves out fsync. Durable then promises nothing.
	NoSync bool

	// OnDurable is called after each commit, Install and Defragment, in order,
	// with the new Durable index. It may call Reader; it must not block and not call
	// Apply, Flush, Image, Install or Close of the Store.
	OnDurable func(index uint64)
	// ObserveCommit, if set, is told how long each commit took, ObserveDefragment how long each Defragment that came to its end did, and
	// ObserveImage for how long each Image was open. They must not block.
	ObserveCommit     func(CommitTimes)
	ObserveDefragment func(time.Duration)
	ObserveImage      func(time.Duration)
	// OnFailure is called at most once, from a goroutine of the Store, with the
	// error that ended it.
	OnFailure func(error)
	// Logger gets one line for each slow or failed commit; nil means none.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	positive := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	positive(&o.MapBytes, DefaultMapBytes)
	positive(&o.CommitOps, DefaultCommitOps)
	positive(&o.CommitBytes, DefaultCommitBytes)
	positive(&o.MaxPendingBytes, DefaultMaxPendingBytes)
	o.MapBytes = max(o.MapBytes, 64<<10)
	if o.CommitInterval <= 0 {
		o.CommitInterval = DefaultCommitInterval
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	if o.OnDurable == nil {
		o.OnDurable = func(uint64) {}
	}
	if o.OnFailure == nil {
		o.OnFailure = func(error) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}
