package ownership

import (
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Drift bounds how far the rates of two clocks may differ, in percent: while any clock of the cluster advances by a time, this one
// advances by no less than that time less so much of it.
type Drift int

// The bounds of a Drift. More than half of a removal time lasts no heartbeat that is lost; without any an instance would have to
// trust its ticks to the nanosecond.
const (
	DriftLeast   Drift = 1
	DriftMost    Drift = 50
	DriftDefault Drift = 10
)

// Margin is what an instance gives up of a removal time.
func (d Drift) Margin(removal time.Duration) time.Duration { return removal * time.Duration(d) / 100 }

// Confirmation is what a confirmed heartbeat gave.
type Confirmation struct {
	// Sent was read from the clock before the heartbeat went out.
	Sent time.Duration
	// View and Sequence are those that the consensus tier had applied at a read index taken after the heartbeat arrived.
	View     *feedv1.View
	Sequence uint64
	// Removal is how long after the sending the instance may be removed at the earliest.
	Removal time.Duration
}

// Right is the right to acknowledge keepalives. Make one with NewRight.
type Right struct {
	drift    Drift
	held     bool
	sent     time.Duration
	epoch    uint64
	sequence uint64
	until    time.Duration
	// voided is when the right was last voided: heartbeats sent before then confirm nothing.
	voided time.Duration
	ended  bool
}

// NewRight makes a right that does not hold yet.
func NewRight(drift Drift) Right { return Right{drift: drift} }

// Margin is what the instance gives up of a removal time.
func (r *Right) Margin(removal time.Duration) time.Duration { return r.drift.Margin(removal) }

// Confirm takes in the answer to a heartbeat. An answer without this instance in its view gives no right, nor does one
// to a heartbeat that was sent before a later one which is confirmed already, or before the right was voided.
func (r *Right) Confirm(self Identity, c Confirmation) {
	if r.ended || c.Sent < r.voided || !contains(c.View, self) {
		return
	}
	if r.held && (c.Sent < r.sent || c.View.GetEpoch() < r.epoch) {
		return
	}
	r.held, r.sent, r.epoch = true, c.Sent, c.View.GetEpoch()
	r.sequence = max(r.sequence, c.Sequence)
	r.until = c.Sent + c.Removal - r.Margin(c.Removal)
}

// Void takes the right away until a heartbeat that is sent at now or later is confirmed.
func (r *Right) Void(now time.Duration) {
	r.held, r.voided = false, now
	r.until = min(r.until, now)
}

// End takes the right away for good: the instance leaves.
func (r *Right) End() { r.held, r.ended = false, true }

// Holds tells whether the right holds at now under an epoch.
func (r *Right) Holds(now time.Duration, epoch uint64) bool {
	return r.held && epoch == r.epoch && now >= r.sent && now < r.until
}

// Until is when the right ends, or ended last; ok is false if it never held.
func (r *Right) Until() (at time.Duration, ok bool) { return r.until, r.until > 0 }

// Sequence is the highest lease sequence that a confirmed heartbeat told.
func (r *Right) Sequence() uint64 { return r.sequence }

// Age is the time since the sending of the last confirmed heartbeat; ok is false if none counts now.
func (r *Right) Age(now time.Duration) (age time.Duration, ok bool) { return now - r.sent, r.held }
