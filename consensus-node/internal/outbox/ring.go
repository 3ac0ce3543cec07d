package outbox

import (
	"sync"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// State is what every message says about the speaker besides its changes.
type State struct {
	// Head is the last applied revision, Compact the compact revision.
	Head, Compact int64
	// LeaseSequence is the last applied step of the lease sequence.
	LeaseSequence uint64
}

// leaseStepsMax bounds the lease changes kept; a follower that is further behind reads the lease table instead.
const leaseStepsMax = 1 << 16

// Ring holds the newest changes in memory. All methods may be called from any goroutine; Append and Reset from one at
// a time.
type Ring struct {
	bytesMax int

	mu        sync.Mutex
	state     State
	base      int64 // the ring covers (base, state.Head]
	revisions []*feedv1.Revision
	sizes     []int  // encoded
	bytes     int    // of memory
	leaseBase uint64 // lease changes cover (leaseBase, state.LeaseSequence]
	leases    []*feedv1.LeaseChange
	resets    uint64        // how often Reset was called
	changed   chan struct{} // closed and replaced at each change
	urgent    chan struct{} // the same at those of leases, and at a reset
}

// What a revision and an event take in memory beside what they carry, about.
const (
	revisionBytes = 200
	eventBytes    = 250
)

func overhead(revision *feedv1.Revision) int {
	return revisionBytes + eventBytes*len(revision.GetEvents())
}

// NewRing makes a ring that begins at the given state with nothing in it. It keeps changes that take at most
// bytesMax bytes of memory, and always the last revision.
func NewRing(state State, bytesMax int) *Ring {
	return &Ring{
		bytesMax:  bytesMax,
		state:     state,
		base:      state.Head,
		leaseBase: state.LeaseSequence,
		changed:   make(chan struct{}),
		urgent:    make(chan struct{}),
	}
}

// Append adds what one or more entries changed. Revisions continue at state.Head+1 without a gap, lease changes at the next
// sequence; next is the state after them.
func (r *Ring) Append(next State, revisions []*feedv1.Revision, leases []*feedv1.LeaseChange) {
	r.mu.Lock()
	for _, revision := range revisions {
		size := revision.SizeVT()
		r.revisions = append(r.revisions, revision)
		r.sizes = append(r.sizes, size)
		r.bytes += size + overhead(revision)
	}
	r.leases = append(r.leases, leases...)
	r.state = next
	r.trim()
	r.wake(len(leases) > 0)
	r.mu.Unlock()
}

// wake tells cursors that there is something to tell; the caller holds the lock.
func (r *Ring) wake(urgent bool) {
	close(r.changed)
	r.changed = make(chan struct{})
	if urgent {
		close(r.urgent)
		r.urgent = make(chan struct{})
	}
}

// trim drops the oldest changes past the bounds; the caller holds the lock.
func (r *Ring) trim() {
	n := 0
	for r.bytes > r.bytesMax && n < len(r.revisions)-1 {
		r.bytes -= r.sizes[n] + overhead(r.revisions[n])
		r.revisions[n] = nil
		n++
	}
	r.revisions, r.sizes = r.revisions[n:], r.sizes[n:]
	r.base += int64(n)
	if over := len(r.leases) - leaseStepsMax; over > 0 {
		clear(r.leases[:over])
		r.leases = r.leases[over:]
		r.leaseBase += uint64(over)
	}
}

// Reset says that the state jumped, as after the install of a snapshot: the ring is empty at the new state and every
// cursor tells a reset before anything else.
func (r *Ring) Reset(state State) {
	r.mu.Lock()
	r.state = state
	r.base, r.leaseBase = state.Head, state.LeaseSequence
	r.revisions, r.sizes, r.bytes, r.leases = nil, nil, 0, nil
	r.resets++
	r.wake(true)
	r.mu.Unlock()
}

// State gives what the ring stands at now.
func (r *Ring) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Span gives the interval of revisions that the ring holds: (from, to].
func (r *Ring) Span() (from, to int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.base, r.state.Head
}

// After gives the revisions above the given one, up to a bound in bytes and at least one if there is any. It is false if the
// ring no longer holds them all.
func (r *Ring) After(revision int64, bytesMax int) (revisions []*feedv1.Revision, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	revisions, _, ok = r.after(revision, bytesMax)
	return revisions, ok
}

func (r *Ring) after(revision int64, bytesMax int) (revisions []*feedv1.Revision, bytes int, ok bool) {
	if revision < r.base {
		return nil, 0, false
	}
	i := int(revision - r.base)
	if i >= len(r.revisions) {
		return nil, 0, true
	}
	n := i
	for n < len(r.revisions) && (n == i || bytes+r.sizes[n] <= bytesMax) {
		bytes += r.sizes[n]
		n++
	}
	// The ring only ever appends behind and drops in front, so the shared part of the array does not change under the
	// reader, except that trim clears what it drops: copy the pointers.
	return append([]*feedv1.Revision(nil), r.revisions[i:n]...), bytes, true
}
