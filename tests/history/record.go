package history

import (
	"slices"
	"sync"
	"time"
)

// Record is what all clients of a cluster wrote down. Its methods may be called at the same time.
type Record struct {
	mu          sync.Mutex
	ops         []Op
	watches     []*Watch
	leases      []*Lease
	compactions []Compaction
	hashes      []Hash
	changed     chan struct{}
	done        int // writes that were acknowledged
}

// Compaction is one that was asked for, whatever came of it.
type Compaction struct {
	Revision int64
	Call     time.Duration
}

// Hash is what one node answered to a HashKV.
type Hash struct {
	Node              string
	Revision, Compact int64
	Hash              uint32
}

// Add adds an operation that has returned.
func (r *Record) Add(op Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	if op.Outcome == Done && op.Request.Writes() {
		r.done++
		if r.changed != nil {
			close(r.changed)
			r.changed = nil
		}
	}
}

// AddWatch adds a watch that is being filled.
func (r *Record) AddWatch(w *Watch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
}

// AddLease adds a lease before it is granted.
func (r *Record) AddLease(l *Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases = append(r.leases, l)
}

// AddCompaction adds one before it is asked for.
func (r *Record) AddCompaction(c Compaction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compactions = append(r.compactions, c)
}

// AddHash adds a node's answer.
func (r *Record) AddHash(h Hash) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hashes = append(r.hashes, h)
}

// Acknowledged counts the writes that were, and gives what is closed when there is one more.
func (r *Record) Acknowledged() (int, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.done, r.changed
}

// Ops are the operations so far.
func (r *Record) Ops() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.ops)
}

// Newest is the highest revision that any operation was told.
func (r *Record) Newest() (newest int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range r.ops {
		newest = max(newest, op.Response.Revision)
	}
	return newest
}

// Watches are all watches.
func (r *Record) Watches() []*Watch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.watches)
}

// Leases are all leases.
func (r *Record) Leases() []*Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.leases)
}

// Hashes are all hashes.
func (r *Record) Hashes() []Hash {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.hashes)
}

// compacted is the highest revision to which a compaction was asked for by a time.
func (r *Record) compacted(by time.Duration) (revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.compactions {
		if c.Call <= by {
			revision = max(revision, c.Revision)
		}
	}
	return revision
}
