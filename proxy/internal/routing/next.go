package routing

import (
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
)

// Outcome is how one attempt at a call ended.
type Outcome uint8

// The outcomes.
const (
	// Answered by the node, with a result or with an error of the request.
	Answered Outcome = iota
	// NotProposed: the node refused and is certain that nothing happened.
	NotProposed
	// NotSent: the call never left this process, or there was nowhere to send it.
	NotSent
	// Lost: the stream broke after the call was sent.
	Lost
	// Full: too many calls are in flight.
	Full
)

// Backoff bounds between attempts. A change of topology ends the wait early.
const (
	BackoffShortest = 5 * time.Millisecond
	BackoffLongest  = 200 * time.Millisecond
)

// Step is what to do after an attempt.
type Step struct {
	// Again: send it again after the wait, or at the next change of topology.
	Again bool
	After time.Duration
	// Err ends the call if it is not nil; otherwise, without Again, the answer goes to the client.
	Err error
}

// Refused tells whether an answer is a refusal of this node rather than an error of the request: only those are sent
// elsewhere, and of writes only those that the node says it did not propose. What one member is asked no other can answer. requireLeader is the client's wish to hear
// of a missing leader at once.
func Refused(class Class, notProposed bool, code codes.Code, message string, requireLeader bool) bool {
	if class == Member || !notProposed && (class == Write || code == codes.OK) {
		return false
	}
	switch code {
	case codes.OK:
		return true
	case codes.Unavailable:
		return !requireLeader || message != rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader)
	case codes.FailedPrecondition:
		return message == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotLeader)
	default:
		return false
	}
}

// Next decides after the attempt-th attempt (from 1). hinted tells that the refusing node named another leader.
func Next(class Class, outcome Outcome, attempt int, hinted bool) Step {
	switch outcome {
	case Answered:
		return Step{}
	case Full:
		return Step{Err: rpctypes.ErrGRPCRequestTooManyRequests}
	case Lost:
		if class == Write {
			return Step{Err: rpctypes.ErrGRPCTimeoutDueToLeaderFail}
		}
	case NotProposed:
		if hinted && attempt == 1 {
			return Step{Again: true}
		}
	case NotSent:
	}
	wait := BackoffLongest
	if attempt < 6 {
		wait = min(BackoffShortest<<(attempt-1), BackoffLongest)
	}
	return Step{Again: true, After: wait}
}

// Expired is the error of a call whose time ran out here. leaderLost tells that the leader it was meant for went away
// meanwhile.
func Expired(leaderLost bool) error {
	if leaderLost {
		return rpctypes.ErrGRPCTimeoutDueToLeaderFail
	}
	return rpctypes.ErrGRPCTimeout
}
