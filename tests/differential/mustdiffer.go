package differential

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Exception is something in which two right systems differ, or that is not asked of them, and why.
type Exception struct {
	// What is meant: fields of responses, as Message.field, or a request in words.
	What   []string
	Reason string
	// One of these makes the exception, and nothing else does:
	blur    func(m protoreflect.Message, field protoreflect.FieldDescriptor) // leaves of a field what must be the same
	drawn   bool                                                             // ids that a system draws: see leaseIDs
	allow   func(c *clocks, op Op, ours, etcds Outcome) bool                 // makes ours etcd's, or says that both are right
	instead func(g *Generator, op Op) Op                                     // gives what is asked in the place of op, or op
	watch   func(l *watchLog, r *pb.WatchResponse)                           // takes out of a response of a watch what may differ
}

// MustDiffer is all that the comparison does not see. A test changes every field of every response and finds each change but those to
// what is listed here.
func MustDiffer() []Exception {
	return []Exception{
		{
			What: []string{"ResponseHeader.cluster_id", "ResponseHeader.member_id", "ResponseHeader.raft_term"}, blur: presence,
			Reason: "each cluster makes its own; that they are there is compared",
		},
		{
			What: []string{
				"StatusResponse.version", "StatusResponse.dbSize", "StatusResponse.dbSizeInUse", "StatusResponse.leader",
				"StatusResponse.raftIndex", "StatusResponse.raftTerm", "StatusResponse.raftAppliedIndex",
			}, blur: presence,
			Reason: "another program, file and log; that they are there is compared",
		},
		{
			What: []string{"StatusResponse.errors"}, blur: oneSpace,
			Reason: "protobuf writes an alarm with one space or two, by chance for each build",
		},
		{
			What: []string{"LeaseLeasesResponse.leases", "LeaseTimeToLiveResponse.keys"}, blur: anyOrder,
			Reason: "etcd takes them from a map, or in the order of expiry",
		},
		{
			What: []string{"LeaseGrantResponse.ID", "LeaseKeepAliveResponse.ID", "LeaseTimeToLiveResponse.ID", "LeaseStatus.ID"}, drawn: true,
			Reason: "a lease granted without an id gets one that the system draws: each is translated into the other's",
		},
		{
			What: []string{"LeaseTimeToLiveResponse.TTL"}, allow: restOfLease,
			Reason: "the two are asked at different moments: by two seconds and what calls about leases took, never above the granted TTL",
		},
		{
			What: []string{"LeaseKeepAliveResponse.header.revision"}, allow: revisionOfKeepAlive,
			Reason: "the owner answers from memory: a revision that was the newest within the last 5 s, and never a later one than etcd's",
		},
		{
			What: []string{"LeaseRevoke of a lease of a second or two that has lived that long"}, allow: mayHaveExpired,
			Reason: "either system may have expired it: both answers are right",
		},
		{
			What: []string{"HashKV at a revision at which was compacted"}, instead: noHashOfCompaction,
			Reason: "etcd gives the hash that it stored during the compaction, with the compact revision of before, also for revision 0",
		},
		{
			What: []string{"RangeStream with a sort target and no order"}, instead: noUnorderedTarget,
			Reason: "etcd sorts each chunk for itself and goes on behind its last key, so that keys come twice or never; Holdfast refuses it",
		},
		{
			What: []string{"Txn that deletes, and puts with ignore_value or ignore_lease"}, instead: noIgnoreBesideDelete,
			Reason: "etcd 3.7.3 panics while it applies such a put of a key that the Txn has deleted, and again at each start",
		},
		{
			What: []string{"Alarm of a type that there is not, raised"}, instead: noUnknownAlarm,
			Reason: "it ends etcd 3.7.3",
		},
		{
			What: []string{"Downgrade that begins"}, instead: noDowngrade,
			Reason: "there is no older version of Holdfast: Unimplemented",
		},
		{
			What: []string{"WatchResponse.fragment"}, watch: func(_ *watchLog, r *pb.WatchResponse) { r.Fragment = false },
			Reason: "how many events one response has, and which watch is told first, and how often that there is nothing, is each system's own; the events of each watch, in order, are not",
		},
		{
			What: []string{"WatchResponse.header.revision"}, watch: anyNewerRevision,
			Reason: "how new the system was when it told of events, or that there are none; compared where a watch is created, never below an event, " +
				"and nothing at or below a notice follows",
		},
		{
			What: []string{"Event.prev_kv at or below the compact revision"}, watch: noCompactedPrev,
			Reason: "etcd cannot read it any more, Holdfast may have it at hand",
		},
		{
			What: []string{"WatchResponse.canceled, said again"}, watch: endOnce,
			Reason: "a client that cancels a watch whose end is on its way hears of it once or twice",
		},
		{
			What: []string{"etcd's end"},
			Reason: "compaction at a revision whose Txn deletes a key, up to the end of the key space, and puts it again takes the value from etcd 3.7.3, and the next read " +
				"ends it (\"range failed to find revision pair\"); a read beside a compaction did too, now and then: the test starts anew with the next seed",
		},
	}
}

// fields are those that one kind of exception names, each with its exception.
func fields(kind func(Exception) bool) map[string]Exception {
	named := map[string]Exception{}
	for _, e := range MustDiffer() {
		if !kind(e) {
			continue
		}
		for _, name := range e.What {
			named[name] = e
		}
	}
	return named
}

// fieldName is how MustDiffer names a field.
func fieldName(field protoreflect.FieldDescriptor) string {
	return string(field.Parent().Name()) + "." + string(field.Name())
}

// present stands for what each system chooses for itself, where it is not empty.
const present = 1

func presence(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	switch field.Kind() { //nolint:exhaustive // no other is listed
	case protoreflect.StringKind:
		m.Set(field, protoreflect.ValueOfString("present"))
	case protoreflect.Int64Kind:
		m.Set(field, protoreflect.ValueOfInt64(present))
	case protoreflect.Uint64Kind:
		m.Set(field, protoreflect.ValueOfUint64(present))
	}
}

func oneSpace(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	list := m.Get(field).List()
	for i := range list.Len() {
		list.Set(i, protoreflect.ValueOfString(strings.Join(strings.Fields(list.Get(i).String()), " ")))
	}
}

func anyOrder(m protoreflect.Message, _ protoreflect.FieldDescriptor) {
	switch m := m.Interface().(type) {
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare)
	}
}

const (
	ttlSlack = 2 * time.Second
	// headerLag is how long a revision may take to reach a lease's owner, on a machine that is busy with other things.
	headerLag = 5 * time.Second
	// shortest is how long every lease lives at least.
	shortest = time.Second
)

func restOfLease(c *clocks, _ Op, ours, etcds Outcome) bool {
	o, okO := ours.Response.(*pb.LeaseTimeToLiveResponse)
	e, okE := etcds.Response.(*pb.LeaseTimeToLiveResponse)
	slack := int64(math.Ceil((ttlSlack + c.slowest).Seconds()))
	if okO && okE && o.GetTTL() > 0 && e.GetTTL() > 0 && max(o.GetTTL()-e.GetTTL(), e.GetTTL()-o.GetTTL()) <= slack && o.GetTTL() <= o.GetGrantedTTL() {
		o.TTL = e.TTL
	}
	return false
}

func revisionOfKeepAlive(c *clocks, _ Op, ours, etcds Outcome) bool {
	o, okO := ours.Response.(*pb.LeaseKeepAliveResponse)
	e, okE := etcds.Response.(*pb.LeaseKeepAliveResponse)
	if !okO || !okE || o.GetHeader() == nil {
		return false
	}
	if revision := o.GetHeader().GetRevision(); revision <= e.GetHeader().GetRevision() && revision >= c.oldestHead() {
		o.Header.Revision = e.GetHeader().GetRevision()
	}
	return false
}

func mayHaveExpired(c *clocks, op Op, ours, etcds Outcome) bool {
	r, ok := op.Request.(*pb.LeaseRevokeRequest)
	since, short := c.short[r.GetID()]
	if !ok || !short || time.Since(since) < shortest {
		return false
	}
	gone := func(o Outcome) bool { return o.Text == rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound) }
	done := func(o Outcome) bool { return o.Response != nil }
	return gone(ours) && done(etcds) || done(ours) && gone(etcds)
}

func noHashOfCompaction(g *Generator, op Op) Op {
	r, ok := op.Request.(*pb.HashKVRequest)
	switch {
	case !ok || !g.compactions[r.GetRevision()] && (r.GetRevision() != 0 || !g.compactions[g.head]):
		return op
	case !g.compactions[g.head]:
		return Op{methodHashKV, &pb.HashKVRequest{Revision: g.head}}
	}
	return Op{methodLeases, &pb.LeaseLeasesRequest{}}
}

func noUnorderedTarget(_ *Generator, op Op) Op {
	if r, ok := op.Request.(*pb.RangeRequest); ok && op.Method == methodStream && r.GetSortOrder() == pb.RangeRequest_NONE {
		r.SortTarget = pb.RangeRequest_KEY
	}
	return op
}

func noIgnoreBesideDelete(_ *Generator, op Op) Op {
	txn, ok := op.Request.(*pb.TxnRequest)
	if !ok {
		return op
	}
	var puts []*pb.PutRequest
	deletes := false
	var walk func(*pb.TxnRequest)
	walk = func(r *pb.TxnRequest) {
		for _, op := range slices.Concat(r.GetSuccess(), r.GetFailure()) {
			switch {
			case op.GetRequestPut() != nil:
				puts = append(puts, op.GetRequestPut())
			case op.GetRequestDeleteRange() != nil:
				deletes = true
			case op.GetRequestTxn() != nil:
				walk(op.GetRequestTxn())
			}
		}
	}
	walk(txn)
	if deletes {
		for _, put := range puts {
			put.IgnoreValue, put.IgnoreLease = false, false
		}
	}
	return op
}

func noUnknownAlarm(_ *Generator, op Op) Op {
	if r, ok := op.Request.(*pb.AlarmRequest); ok && r.GetAction() == pb.AlarmRequest_ACTIVATE {
		if _, known := pb.AlarmType_name[int32(r.GetAlarm())]; !known {
			r.Alarm = pb.AlarmType_NONE
		}
	}
	return op
}

func noDowngrade(_ *Generator, op Op) Op {
	if r, ok := op.Request.(*pb.DowngradeRequest); ok && r.GetAction() == pb.DowngradeRequest_ENABLE && strings.HasPrefix(r.GetVersion(), "3.6") {
		r.Action = pb.DowngradeRequest_VALIDATE
	}
	return op
}

func anyNewerRevision(l *watchLog, r *pb.WatchResponse) {
	if !r.GetCreated() && r.GetHeader() != nil {
		l.checkRevision(r)
		r.Header.Revision = present
	}
}

func noCompactedPrev(l *watchLog, r *pb.WatchResponse) {
	for _, e := range r.GetEvents() {
		if e.GetKv().GetModRevision() <= l.compact {
			e.PrevKv = (*mvccpb.KeyValue)(nil)
		}
	}
}

func endOnce(l *watchLog, r *pb.WatchResponse) {
	if r.GetCanceled() && !r.GetCreated() && l.ended[r.GetWatchId()] {
		r.Canceled, r.CancelReason, r.CompactRevision = false, "", 0
	}
}
