package window

import (
	"cmp"
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Version is the format version of messages that a Follower understands.
const Version = 1

// Interval is accepted changes: everything in (From, To].
type Interval struct {
	From, To  int64
	Revisions []*feedv1.Revision
}

// Cause is why something is missing; it is the value of a metric's label.
type Cause string

// The causes.
const (
	// Hole: a message begins beyond the position.
	Hole Cause = "hole"
	// BodyLess: an interval was announced without its changes.
	BodyLess Cause = "body_less"
	// Heartbeat: a publisher has told more than was heard.
	Heartbeat Cause = "heartbeat"
	// Reset: a publisher's state jumped.
	Reset Cause = "reset"
	// Behind: a head is known beyond what any publisher has told; it may be on its way.
	Behind Cause = "behind"
)

// Need is an interval that is known to be missing: (After, UpTo].
type Need struct {
	After, UpTo int64
	Cause       Cause
}

// Limits bound what a Follower keeps of messages that cannot be accepted yet.
type Limits struct {
	// PendingBytes bounds messages from beyond a hole; past it they are dropped and fetched with the hole.
	PendingBytes int
	// PartsBytes bounds parts that wait for their others.
	PartsBytes int
}

// DefaultLimits are what a hub uses.
func DefaultLimits() Limits { return Limits{PendingBytes: 16 << 20, PartsBytes: 64 << 20} }

// Follower is a position in the feed. Make one with NewFollower.
type Follower struct {
	limits    Limits
	clusterID uint64

	started   bool
	position  int64
	head      int64
	compact   int64
	hasLeader bool

	// wanted is the highest revision that is certainly missing, if above the position, and why.
	wanted int64
	cause  Cause

	pending      []*feedv1.Message // whole, from beyond the position, by previous revision
	pendingBytes int
	parts        parts
	refused      uint64
}

// NewFollower makes a follower of one cluster that has no position yet: the first message gives it one.
func NewFollower(clusterID uint64, limits Limits) *Follower {
	return &Follower{limits: limits, clusterID: clusterID, parts: parts{bytesMax: limits.PartsBytes}}
}

// Started tells whether there is a position.
func (f *Follower) Started() bool { return f.started }

// Position is up to where everything was accepted.
func (f *Follower) Position() int64 { return f.position }

// Head is the highest revision known to exist.
func (f *Follower) Head() int64 { return max(f.head, f.position) }

// Compact is the highest compact revision heard of.
func (f *Follower) Compact() int64 { return f.compact }

// HasLeader is what the last message said.
func (f *Follower) HasLeader() bool { return f.hasLeader }

// Refused counts the messages of another cluster, another version, or with changes outside their interval.
func (f *Follower) Refused() uint64 { return f.refused }

// Receive takes in a message and gives what can be accepted now, in order: the message's own changes above the position, and
// what waited behind a hole that they fill.
func (f *Follower) Receive(m *feedv1.Message) []Interval {
	if !f.valid(m) {
		f.refused++
		return nil
	}
	f.head = max(f.head, m.GetHeadRevision())
	f.compact = max(f.compact, m.GetCompactRevision())
	f.hasLeader = m.GetHasLeader()
	if !f.started {
		f.started, f.position = true, m.GetPreviousRevision()
	}
	switch {
	case m.GetLastRevision() <= m.GetPreviousRevision():
		cause := Heartbeat
		if m.GetReset_() {
			cause = Reset
		}
		f.want(m.GetLastRevision(), cause)
		return nil
	case m.GetLastRevision() <= f.position:
		return nil
	case m.GetBodyLess():
		f.want(m.GetLastRevision(), BodyLess)
		return nil
	case m.GetParts() > 0:
		if m = f.parts.join(m); m == nil {
			return nil
		}
		if !inOrder(m) {
			f.refused++
			return nil
		}
	}
	if m.GetPreviousRevision() > f.position {
		f.want(m.GetPreviousRevision(), Hole)
		f.keep(m)
		return nil
	}
	return f.drain([]Interval{f.accept(m)})
}

// Need says what is missing, if anything: what is certainly lost first, then what a head only hints at.
func (f *Follower) Need() (Need, bool) {
	switch {
	case !f.started:
		return Need{}, false
	case f.wanted > f.position:
		return Need{After: f.position, UpTo: f.wanted, Cause: f.cause}, true
	case f.head > f.position:
		return Need{After: f.position, UpTo: f.head, Cause: Behind}, true
	}
	return Need{}, false
}

// Jump gives up what lies between the position and a later one, because no history has it any more.
func (f *Follower) Jump(position int64) []Interval {
	f.started = true
	f.position = max(f.position, position)
	return f.drain(nil)
}

// valid checks what the rest relies on.
func (f *Follower) valid(m *feedv1.Message) bool {
	if m.GetVersion() != Version || m.GetClusterId() != f.clusterID || m.GetPreviousRevision() > m.GetLastRevision() ||
		m.GetPreviousRevision() < 0 || m.GetPart() > m.GetParts() || (m.GetParts() > 0 && m.GetPart() == 0) || m.GetParts() > partsMax {
		return false
	}
	return inOrder(m)
}

// inOrder tells whether a message's revisions increase within its interval.
func inOrder(m *feedv1.Message) bool {
	before := m.GetPreviousRevision()
	for _, r := range m.GetRevisions() {
		if r.GetRevision() <= before || r.GetRevision() > m.GetLastRevision() {
			return false
		}
		before = r.GetRevision()
	}
	return true
}

// want notes that everything up to a revision exists and is missing if it is above the position.
func (f *Follower) want(revision int64, cause Cause) {
	if revision <= f.position || revision <= f.wanted {
		return
	}
	if f.wanted <= f.position {
		f.cause = cause
	}
	f.wanted = revision
}

// accept moves the position over a message that begins at or below it.
func (f *Follower) accept(m *feedv1.Message) Interval {
	i := Interval{From: f.position, To: m.GetLastRevision(), Revisions: m.GetRevisions()}
	for len(i.Revisions) > 0 && i.Revisions[0].GetRevision() <= f.position {
		i.Revisions = i.Revisions[1:]
	}
	f.position = i.To
	return i
}

// keep holds a message from beyond a hole. Past the bound it is wanted like the hole itself.
func (f *Follower) keep(m *feedv1.Message) {
	size := m.SizeVT() + overhead
	if f.pendingBytes+size > f.limits.PendingBytes {
		f.want(m.GetLastRevision(), Hole)
		return
	}
	at, _ := slices.BinarySearchFunc(f.pending, m, func(a, b *feedv1.Message) int {
		return cmp.Or(cmp.Compare(a.GetPreviousRevision(), b.GetPreviousRevision()), cmp.Compare(a.GetLastRevision(), b.GetLastRevision()))
	})
	if at < len(f.pending) && f.pending[at].GetPreviousRevision() == m.GetPreviousRevision() && f.pending[at].GetLastRevision() == m.GetLastRevision() {
		return // a repetition
	}
	f.pending = slices.Insert(f.pending, at, m)
	f.pendingBytes += size
}

// drain accepts what waited and can follow now.
func (f *Follower) drain(accepted []Interval) []Interval {
	n := 0
	for ; n < len(f.pending) && f.pending[n].GetPreviousRevision() <= f.position; n++ {
		m := f.pending[n]
		f.pendingBytes -= m.SizeVT() + overhead
		if m.GetLastRevision() > f.position {
			accepted = append(accepted, f.accept(m))
		}
	}
	f.pending = slices.Delete(f.pending, 0, n)
	f.parts.forget(f.position)
	return accepted
}
