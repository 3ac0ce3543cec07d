package edge

import (
	"context"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// rpc is one unary method of etcd's API.
type rpc struct {
	service, name string
	method        consensusv1.Method
	class         routing.Class
	// classify, if set, looks at the request (and at the table) for the class.
	classify func(request []byte, table *routing.Table) routing.Class
	// steps, if set, serves what is more than one call.
	steps func(e *Edge) func(ctx context.Context, call *calls.Call) (*consensusv1.Answer, error)
	// patient, if set, tells whether the request may take any time, so that only its client's deadline ends it.
	patient func(request []byte) bool
}

// Names of etcd's services.
const (
	serviceKV          = "etcdserverpb.KV"
	serviceWatch       = "etcdserverpb.Watch"
	serviceLease       = "etcdserverpb.Lease"
	serviceCluster     = "etcdserverpb.Cluster"
	serviceMaintenance = "etcdserverpb.Maintenance"
)

// rpcs are the unary methods that pass to the consensus tier; whether it serves them is its business. What is not
// listed here or in streams (Auth and so on) gets gRPC's own Unimplemented.
func rpcs() []rpc {
	const w, l = routing.Write, routing.Linearizable
	return []rpc{
		{service: serviceKV, name: "Range", method: consensusv1.Method_METHOD_RANGE, classify: classifyRange},
		{service: serviceKV, name: "Put", method: consensusv1.Method_METHOD_PUT, class: w},
		{service: serviceKV, name: "DeleteRange", method: consensusv1.Method_METHOD_DELETE_RANGE, class: w},
		// A Txn may be read-only, but to find out costs as much as it would save.
		{service: serviceKV, name: "Txn", method: consensusv1.Method_METHOD_TXN, class: w},
		{service: serviceKV, name: "Compact", method: consensusv1.Method_METHOD_COMPACT, class: w, patient: wire.CompactPhysical},

		{service: serviceLease, name: "LeaseGrant", method: consensusv1.Method_METHOD_LEASE_GRANT, class: w},
		{service: serviceLease, name: "LeaseRevoke", method: consensusv1.Method_METHOD_LEASE_REVOKE, class: w, steps: revoke},
		{
			service: serviceLease, name: "LeaseTimeToLive", method: consensusv1.Method_METHOD_LEASE_TIME_TO_LIVE,
			class: l, steps: timeToLive,
		},
		{service: serviceLease, name: "LeaseLeases", method: consensusv1.Method_METHOD_LEASE_LEASES, class: l},

		{
			service: serviceCluster, name: "MemberList", method: consensusv1.Method_METHOD_MEMBER_LIST,
			classify: classifyMemberList,
		},
		{service: serviceCluster, name: "MemberAdd", method: consensusv1.Method_METHOD_MEMBER_ADD, class: w},
		{service: serviceCluster, name: "MemberRemove", method: consensusv1.Method_METHOD_MEMBER_REMOVE, class: w},
		{service: serviceCluster, name: "MemberUpdate", method: consensusv1.Method_METHOD_MEMBER_UPDATE, class: w},
		{service: serviceCluster, name: "MemberPromote", method: consensusv1.Method_METHOD_MEMBER_PROMOTE, class: w},

		{service: serviceMaintenance, name: "Status", method: consensusv1.Method_METHOD_STATUS, classify: classifyStatus},
		{service: serviceMaintenance, name: "Alarm", method: consensusv1.Method_METHOD_ALARM, class: w},
		{service: serviceMaintenance, name: "HashKV", method: consensusv1.Method_METHOD_HASH_KV, classify: ofMember(l)},
		{service: serviceMaintenance, name: "Hash", method: consensusv1.Method_METHOD_HASH, classify: ofMember(l)},
		{service: serviceMaintenance, name: "Defragment", method: consensusv1.Method_METHOD_DEFRAGMENT, class: w, steps: defragment},
		{service: serviceMaintenance, name: "MoveLeader", method: consensusv1.Method_METHOD_MOVE_LEADER, classify: ofMember(w)},
		{service: serviceMaintenance, name: "Downgrade", method: consensusv1.Method_METHOD_DOWNGRADE, class: w},
	}
}

func classifyRange(request []byte, _ *routing.Table) routing.Class {
	if wire.RangeSerializable(request) {
		return routing.Serializable
	}
	return routing.Linearizable
}

func classifyMemberList(request []byte, _ *routing.Table) routing.Class {
	if wire.MemberListLinearizable(request) {
		return routing.Linearizable
	}
	return routing.Serializable
}

// ofMember is for what each member of etcd answers for itself: a proxy asks its own node, or the leader if it has none.
func ofMember(without routing.Class) func([]byte, *routing.Table) routing.Class {
	return func(_ []byte, table *routing.Table) routing.Class {
		if table.Own != "" {
			return routing.Member
		}
		return without
	}
}

// classifyStatus sends Status to the proxy's own node or to the leader, and to any member while there is none: that is when
// people ask.
func classifyStatus(_ []byte, table *routing.Table) routing.Class {
	switch {
	case table.Own != "":
		return routing.Member
	case table.HasLeader():
		return routing.Linearizable
	}
	return routing.Serializable
}

func revoke(e *Edge) func(context.Context, *calls.Call) (*consensusv1.Answer, error) {
	return e.config.Leases.Revoke
}

func timeToLive(e *Edge) func(context.Context, *calls.Call) (*consensusv1.Answer, error) {
	return e.config.Leases.TimeToLive
}
