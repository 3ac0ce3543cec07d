package outbox

import (
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// HeartbeatInterval is the longest that a follower hears nothing while the speaker lives: a lost last message shows after
// this long.
const HeartbeatInterval = 100 * time.Millisecond

// Version is the format version of the messages.
const Version = 1

// Leadership is what a message says about the speaker's view of raft.
type Leadership struct {
	Term   uint64
	Leader uint64 // 0: none known
}

// Speaker is who publishes.
type Speaker struct {
	ClusterID uint64
	MemberID  uint64
	// Run changes at each start of the process.
	Run uint64
	// Leadership is asked at each message.
	Leadership func() Leadership
}

// Cursor walks a ring for one follower. It is used by one goroutine at a time.
type Cursor struct {
	ring     *Ring
	speaker  Speaker
	bytesMax int

	revision      int64
	leaseSequence uint64
	resets        uint64
}

// Cursor makes a cursor that stands at the ring's present state. Messages carry at most bytesMax bytes of revisions; a single
// larger revision is announced without its body, and the follower fetches it.
func (r *Ring) Cursor(speaker Speaker, bytesMax int) *Cursor {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Cursor{
		ring: r, speaker: speaker, bytesMax: bytesMax,
		revision: r.state.Head, leaseSequence: r.state.LeaseSequence, resets: r.resets,
	}
}

// Skip moves the cursor to the ring's present state without telling what lies between.
func (c *Cursor) Skip() {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	c.revision, c.leaseSequence, c.resets = c.ring.state.Head, c.ring.state.LeaseSequence, c.ring.resets
}

// idle gives a channel that is closed when there may be something to tell, or nil if there is.
func (c *Cursor) idle() <-chan struct{} {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	if c.level() && c.revision == c.ring.state.Head {
		return c.ring.changed
	}
	return nil
}

// urgent gives a channel that is closed when there is something to tell that must not wait, or nil if there is.
func (c *Cursor) urgent() <-chan struct{} {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	if c.level() {
		return c.ring.urgent
	}
	return nil
}

// level tells whether the cursor lies behind in revisions at most; the caller holds the ring's lock.
func (c *Cursor) level() bool {
	return c.resets == c.ring.resets && c.leaseSequence == c.ring.state.LeaseSequence
}

// Next gives the next message, or nil and a channel that is closed when there may be one.
func (c *Cursor) Next() (*feedv1.Message, <-chan struct{}) {
	if changed := c.idle(); changed != nil {
		return nil, changed
	}
	r := c.ring
	r.mu.Lock()
	m := &feedv1.Message{}
	c.fill(m)
	r.mu.Unlock()
	c.sign(m)
	return m, nil
}

// Heartbeat gives a message without changes at the cursor's position, with the ring's state. A heartbeat's head may lie beyond what
// the follower was told: then it knows that something is missing or under way.
func (c *Cursor) Heartbeat() *feedv1.Message {
	m := &feedv1.Message{}
	c.ring.mu.Lock()
	c.head(m)
	m.PreviousRevision, m.LastRevision = c.revision, c.revision
	m.PreviousLeaseSequence, m.LeaseSequence = c.leaseSequence, c.leaseSequence
	c.ring.mu.Unlock()
	c.sign(m)
	return m
}

// fill writes the next interval into m and moves the cursor; the caller holds the ring's lock.
func (c *Cursor) fill(m *feedv1.Message) {
	r := c.ring
	c.head(m)
	if c.resets != r.resets {
		m.Reset_ = true
		c.resets, c.revision, c.leaseSequence = r.resets, r.state.Head, r.state.LeaseSequence
		m.PreviousRevision, m.LastRevision = c.revision, c.revision
		m.PreviousLeaseSequence = c.leaseSequence
		return
	}
	m.PreviousRevision, m.PreviousLeaseSequence = c.revision, c.leaseSequence
	revisions, bytes, ok := r.after(c.revision, c.bytesMax)
	switch {
	case !ok:
		m.BodyLess = true
		c.revision = r.base
	case bytes > c.bytesMax:
		m.BodyLess = true
		c.revision = revisions[0].GetRevision()
	case len(revisions) > 0:
		m.Revisions = revisions
		c.revision = revisions[len(revisions)-1].GetRevision()
	}
	m.LastRevision = c.revision
	c.fillLeases(m)
}

// leaseChangesMax bounds the lease changes of one message, so that it stays below what a bus carries.
const leaseChangesMax = 4096

// fillLeases writes the next interval of the lease sequence into m; the caller holds the ring's lock.
func (c *Cursor) fillLeases(m *feedv1.Message) {
	r := c.ring
	if c.leaseSequence < r.leaseBase {
		// Too far behind: the follower sees the hole in the sequence and reads the table.
		c.leaseSequence = r.leaseBase
		m.PreviousLeaseSequence = r.leaseBase
	}
	changes := r.leases[c.leaseSequence-r.leaseBase:]
	changes = changes[:min(len(changes), leaseChangesMax)]
	m.LeaseChanges = append(m.LeaseChanges, changes...)
	c.leaseSequence += uint64(len(changes))
	m.LeaseSequence = c.leaseSequence
}

// head writes the speaker's state; the caller holds the ring's lock.
func (c *Cursor) head(m *feedv1.Message) {
	m.HeadRevision, m.CompactRevision = c.ring.state.Head, c.ring.state.Compact
	m.LeaseSequence = c.ring.state.LeaseSequence
}

// sign writes who speaks.
func (c *Cursor) sign(m *feedv1.Message) {
	m.Version = Version
	m.ClusterId, m.Publisher, m.PublisherRun = c.speaker.ClusterID, c.speaker.MemberID, c.speaker.Run
	leadership := c.speaker.Leadership()
	m.Term, m.Leader, m.HasLeader = leadership.Term, leadership.Leader, leadership.Leader != 0
}
