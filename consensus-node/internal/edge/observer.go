package edge

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
)

// Observer is told what the calls come to, for metrics. It must not block.
type Observer interface {
	// Request tells how long a write or a read took from its arrival to its answer. What another node may be asked instead is none.
	Request(kind RequestKind, failed bool, took time.Duration)
	// Ranged tells how long a read of a range took once its view was there, Ops what other reads of keys did.
	Ranged(failed bool, took time.Duration)
	Ops(ops mvcc.Ops)
	// Hashed tells how long it took to hash the database, or the keys up to a revision.
	Hashed(keys bool, took time.Duration)
	// Promoted tells that a learner was promoted, or in etcd's words why not.
	Promoted(refusal string)
}

// RequestKind is what etcd tells requests apart by.
type RequestKind int

// The kinds that are told of.
const (
	RequestOther RequestKind = iota
	RequestRange
	RequestReadonlyTxn
	RequestPut
	RequestDeleteRange
	RequestTxn
	RequestCompaction
	RequestLeaseGrant
	RequestLeaseRevoke
	RequestAlarm
	// RequestKinds is how many there are.
	RequestKinds
)

// String is etcd's name of the kind.
func (k RequestKind) String() string {
	return [RequestKinds]string{
		RequestRange: "Range", RequestReadonlyTxn: "ReadonlyTxn", RequestPut: "Put", RequestDeleteRange: "DeleteRange", RequestTxn: "Txn",
		RequestCompaction: "Compaction", RequestLeaseGrant: "LeaseGrant", RequestLeaseRevoke: "LeaseRevoke", RequestAlarm: "Alarm",
	}[k]
}

// kindOf gives the kind of a call; read says that it only reads.
func kindOf(method consensusv1.Method, read bool) RequestKind {
	switch method { //nolint:exhaustive // all others are RequestOther
	case consensusv1.Method_METHOD_RANGE:
		return RequestRange
	case consensusv1.Method_METHOD_PUT:
		return RequestPut
	case consensusv1.Method_METHOD_DELETE_RANGE:
		return RequestDeleteRange
	case consensusv1.Method_METHOD_TXN:
		if read {
			return RequestReadonlyTxn
		}
		return RequestTxn
	case consensusv1.Method_METHOD_COMPACT:
		return RequestCompaction
	case consensusv1.Method_METHOD_LEASE_GRANT:
		return RequestLeaseGrant
	case consensusv1.Method_METHOD_LEASE_REVOKE:
		return RequestLeaseRevoke
	case consensusv1.Method_METHOD_ALARM:
		if !read {
			return RequestAlarm
		}
	}
	return RequestOther
}

// promotion tells the observer of the answer to the promotion of a learner.
func (s *Server) promotion(reply reply) reply {
	return func(call *consensusv1.Call, answer *consensusv1.Answer) {
		if !answer.GetNotProposed() {
			s.cfg.Observer.Promoted(answer.GetMessage())
		}
		reply(call, answer)
	}
}

// timed tells the observer of each answer that passes to reply. A write that was applied has not failed, whatever came of it: as in etcd
// this is about those that time out.
func (s *Server) timed(began time.Time, read bool, reply reply) reply {
	return func(call *consensusv1.Call, answer *consensusv1.Answer) {
		if kind := kindOf(call.GetMethod(), read); kind != RequestOther && !answer.GetNotProposed() {
			failed := answer.GetCode() != uint32(codes.OK)
			if !read {
				failed = answer.GetCode() == uint32(codes.Unavailable)
			}
			s.cfg.Observer.Request(kind, failed, time.Since(began))
		}
		reply(call, answer)
	}
}
