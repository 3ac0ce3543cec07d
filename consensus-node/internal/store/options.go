package store

import (
	"log/slog"
	"time"
)

// Defaults of Options. The map on Linux is etcd's. Nobody waits for a commit,
// the log has the same changes; each one costs two syncs that those of the log
// wait for, and processor time in one go that grows with what it writes. So the
// interval is longer than etcd's 100 ms, and at usual loads it alone decides,
// which keeps the turns of several nodes apart.
const (
	DefaultMapBytes        = 10 << 30
	DefaultCommitInterval  = 250 * time.Millisecond
	DefaultCommitOps       = 20_000
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
	// CommitInterval is how long a change waits at most for others before it
	// is committed: commits by time begin at multiples of it on the clock,
	// later by what SetTurn says.
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
