package outbox

import (
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Leases picks out of what one cursor says what concerns leases: changes and jumps of the lease sequence as they come, and at least every
// HeartbeatInterval, while anything at all is said, where the sequence and the revision stand. Who follows leases alone is then not woken
// by every put. It is used by one goroutine.
type Leases struct{ said time.Time }

// Of gives what to tell of m, which is not changed, or nil for nothing.
func (l *Leases) Of(m *feedv1.Message, now time.Time) *feedv1.Message {
	// A heartbeat that comes a little early must not be the reason that the next one is late.
	due := now.Sub(l.said) >= HeartbeatInterval/2
	if !due && !m.GetReset_() && m.GetLeaseSequence() == m.GetPreviousLeaseSequence() {
		return nil
	}
	l.said = now
	return &feedv1.Message{
		Version: m.GetVersion(), ClusterId: m.GetClusterId(), Publisher: m.GetPublisher(), PublisherRun: m.GetPublisherRun(),
		Term: m.GetTerm(), HeadRevision: m.GetHeadRevision(), CompactRevision: m.GetCompactRevision(),
		LeaseSequence: m.GetLeaseSequence(), HasLeader: m.GetHasLeader(), Leader: m.GetLeader(), Reset_: m.GetReset_(),
		PreviousRevision: m.GetLastRevision(), LastRevision: m.GetLastRevision(),
		PreviousLeaseSequence: m.GetPreviousLeaseSequence(), LeaseChanges: m.GetLeaseChanges(),
	}
}

// Keys picks out of what one cursor says what concerns keys: all but the changes of leases. Who follows keys alone is then not woken by those.
// It is used by one goroutine.
type Keys struct{ said time.Time }

// Of gives what to tell of m, which is not changed, or nil for nothing. At least every HeartbeatInterval, while anything at all is said,
// it tells where the revision and the sequence stand.
func (k *Keys) Of(m *feedv1.Message, now time.Time) *feedv1.Message {
	due := now.Sub(k.said) >= HeartbeatInterval/2
	leases := m.GetLeaseSequence() != m.GetPreviousLeaseSequence()
	if leases && !due && !m.GetReset_() && m.GetLastRevision() == m.GetPreviousRevision() {
		return nil
	}
	k.said = now
	if !leases {
		return m
	}
	return &feedv1.Message{
		Version: m.GetVersion(), ClusterId: m.GetClusterId(), Publisher: m.GetPublisher(), PublisherRun: m.GetPublisherRun(),
		Term: m.GetTerm(), HeadRevision: m.GetHeadRevision(), CompactRevision: m.GetCompactRevision(),
		LeaseSequence: m.GetLeaseSequence(), HasLeader: m.GetHasLeader(), Leader: m.GetLeader(), Reset_: m.GetReset_(),
		PreviousRevision: m.GetPreviousRevision(), LastRevision: m.GetLastRevision(), BodyLess: m.GetBodyLess(), Revisions: m.GetRevisions(),
		PreviousLeaseSequence: m.GetLeaseSequence(),
	}
}
