package lease

import (
	"errors"
	"math/rand/v2"
	"time"

	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
)

// Waits between attempts at one keepalive, jittered by as much again.
const (
	retryShortest = 10 * time.Millisecond
	retryLongest  = 200 * time.Millisecond
)

// keepAliveBytes is what a keepalive counts in a batch.
const keepAliveBytes = 32

// renewal is one keepalive over its attempts. It goes to the owner of the moment, again and again: a keepalive may be
// carried out twice without harm.
type renewal struct {
	instances *Instances
	lease     int64
	span      []byte
	attempts  int
	// live tells whether the client still waits; done is called once unless it does not.
	live func() bool
	done func(outcome)
}

// outcome ends a keepalive: a TTL in seconds (0: no such lease), or the error that ends the client's stream.
type outcome struct {
	ttl, revision int64
	err           error
}

// errUnreachable says that no instance can be reached at all.
var errUnreachable = errors.New("lease: no lease-service instance is reachable")

// attempt sends the keepalive to the owner. It may block while a stream opens.
func (r *renewal) attempt() {
	if !r.live() {
		return
	}
	r.attempts++
	to, err := r.instances.owner(r.lease)
	if err != nil {
		r.done(outcome{err: err})
		return
	}
	stream, err := r.instances.stream(to)
	if err == nil {
		_, err = stream.Go(&leasev1.KeepAlive{Lease: r.lease, SpanContext: r.span}, keepAliveBytes, r)
	}
	switch {
	case err == nil:
	case errors.Is(err, batch.ErrFull) || r.instances.reachable():
		r.later()
	default:
		r.done(outcome{err: errUnreachable})
	}
}

// Done implements batch.Waiter. It must not block, so whatever opens a stream goes elsewhere.
func (r *renewal) Done(answer *leasev1.KeepAliveAnswer, err error) {
	if err != nil {
		r.later()
		return
	}
	switch answer.GetOutcome() {
	case leasev1.Outcome_OUTCOME_RENEWED:
		r.done(outcome{ttl: answer.GetTtlS(), revision: answer.GetRevision()})
	case leasev1.Outcome_OUTCOME_NOT_FOUND:
		r.done(outcome{revision: answer.GetRevision()})
	case leasev1.Outcome_OUTCOME_NOT_OWNER:
		r.instances.topology.Viewed(answer.GetView())
		r.later()
	case leasev1.Outcome_OUTCOME_UNAVAILABLE, leasev1.Outcome_OUTCOME_UNSPECIFIED, leasev1.Outcome_OUTCOME_DONE:
		r.later()
	}
}

// later makes the next attempt after a wait that grows, or under the next view.
func (r *renewal) later() {
	wait := retryLongest
	if r.attempts < 5 {
		wait = retryShortest << (r.attempts - 1)
	}
	if r.attempts == 1 {
		wait = retryShortest / 10 // most often it only moved
	}
	r.instances.after(wait+rand.N(wait), r)
}
