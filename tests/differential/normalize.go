package differential

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// present stands for a number that each system chooses for itself, where it is not 0.
const present = 1

// Normalize takes out of a response what two right systems may say differently, and nothing else:
//   - cluster id, member id and raft term of the header: only whether they are there counts;
//   - the order of leases and of a lease's keys, which etcd takes from a map or from expiry times;
//   - in a status the program's version, the sizes of the database, the leader's id, and index and term of the log: only whether they
//     are there counts. In its errors an alarm is written by protobuf, which puts one space or two, by chance for each build.
func Normalize(message proto.Message) {
	if m, ok := message.(interface{ GetHeader() *pb.ResponseHeader }); ok && m.GetHeader() != nil {
		h := m.GetHeader()
		some(&h.ClusterId, &h.MemberId, &h.RaftTerm)
	}
	switch m := message.(type) {
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare)
	case *pb.StatusResponse:
		if m.Version != "" {
			m.Version = "present"
		}
		for i, text := range m.Errors {
			m.Errors[i] = strings.Join(strings.Fields(text), " ")
		}
		some(&m.DbSize, &m.DbSizeInUse)
		some(&m.Leader, &m.RaftIndex, &m.RaftTerm, &m.RaftAppliedIndex)
	}
}

// some keeps of numbers only whether they are there.
func some[T int64 | uint64](numbers ...*T) {
	for _, n := range numbers {
		if *n != 0 {
			*n = present
		}
	}
}

// clocks is what a Pair knows of time: how long the calls about leases took, and which revision was the newest when.
type clocks struct {
	slowest time.Duration
	heads   []headAt
	short   map[int64]time.Time // since when the leases live that are shorter than a run
}

// headAt is a revision and since when it is the newest.
type headAt struct {
	revision int64
	at       time.Time
}

// What the two systems may differ by, besides how long the calls took.
const (
	ttlSlack = 2 * time.Second
	// headerLag is how long a revision may take to reach a lease's owner, on a machine that is busy with other things.
	headerLag = 5 * time.Second
	// shortest is how long every lease lives at least.
	shortest = time.Second
)

// Equal compares two normalized outcomes of a request, ours with etcd's.
func Equal(op Op, ours, etcds Outcome, c *clocks) bool {
	if ours.Code != etcds.Code || ours.Text != etcds.Text || (ours.Response == nil) != (etcds.Response == nil) {
		return c.mayHaveExpired(op, ours, etcds)
	}
	if ours.Response == nil {
		return true
	}
	if proto.Equal(ours.Response, etcds.Response) {
		return true
	}
	o := proto.Clone(ours.Response)
	c.allow(o, etcds.Response)
	return proto.Equal(o, etcds.Response)
}

// allow makes ours equal to etcd's where the difference is one of those that may be:
//   - the rest of a lease, by ttlSlack and how long calls about leases took: the two systems are asked at different moments;
//   - the revision in the header of a keepalive's answer: the lease's owner answers from memory, for which the newest
//     revision may still be on its way. It may be one that was the newest within headerLag, never a later one than etcd's;
//   - whether a lease of a second or two is gone by itself when it is revoked (mayHaveExpired).
func (c *clocks) allow(ours, etcds proto.Message) {
	switch o := ours.(type) {
	case *pb.LeaseTimeToLiveResponse:
		e, ok := etcds.(*pb.LeaseTimeToLiveResponse)
		slack := int64(math.Ceil((ttlSlack + c.slowest).Seconds()))
		if ok && o.TTL > 0 && e.TTL > 0 && max(o.TTL-e.TTL, e.TTL-o.TTL) <= slack && o.TTL <= o.GrantedTTL {
			o.TTL = e.TTL
		}
	case *pb.LeaseKeepAliveResponse:
		e, ok := etcds.(*pb.LeaseKeepAliveResponse)
		if revision := o.GetHeader().GetRevision(); ok && revision <= e.GetHeader().GetRevision() && revision >= c.oldestHead() {
			o.Header.Revision = e.GetHeader().GetRevision()
		}
	}
}

// note takes what etcd answered.
func (c *clocks) note(op Op, etcds Outcome, took time.Duration) {
	now := time.Now()
	switch r := op.Request.(type) {
	case *pb.LeaseGrantRequest:
		c.slowest = max(c.slowest, took)
		if granted, ok := etcds.Response.(*pb.LeaseGrantResponse); ok && r.GetTTL() < longTTLS {
			c.short[granted.GetID()] = now.Add(-took)
		}
	case *pb.LeaseKeepAliveRequest, *pb.LeaseTimeToLiveRequest:
		c.slowest = max(c.slowest, took)
	}
	head := revisionOf(etcds)
	if len(c.heads) == 0 || head > c.heads[len(c.heads)-1].revision {
		c.heads = append(c.heads, headAt{head, now})
	}
	for len(c.heads) > 1 && now.Sub(c.heads[1].at) > headerLag {
		c.heads = c.heads[1:] // the next one was the newest all the time
	}
}

func (c *clocks) oldestHead() int64 {
	if len(c.heads) == 0 {
		return 0
	}
	return c.heads[0].revision
}

func (c *clocks) mayHaveExpired(op Op, ours, etcds Outcome) bool {
	r, ok := op.Request.(*pb.LeaseRevokeRequest)
	since, short := c.short[r.GetID()]
	if !ok || !short || time.Since(since) < shortest {
		return false
	}
	gone := func(o Outcome) bool { return o.Text == rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound) }
	done := func(o Outcome) bool { return o.Response != nil }
	return (gone(ours) || done(ours)) && (gone(etcds) || done(etcds))
}

// revisionOf is the revision in the header of a response, 0 without one.
func revisionOf(o Outcome) int64 {
	if m, ok := o.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok && o.Response != nil {
		return m.GetHeader().GetRevision()
	}
	return 0
}

// leaseIDs are the leases whose ids the two systems chose themselves, from the one's id to the other's.
type leaseIDs map[int64]int64

// translate replaces lease ids everywhere in the message.
func (ids leaseIDs) translate(message proto.Message) {
	if len(ids) > 0 {
		ids.walk(message.ProtoReflect())
	}
}

func (ids leaseIDs) walk(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				ids.walk(value.List().Get(i).Message())
			}
		case field.Message() != nil && !field.IsMap():
			ids.walk(value.Message())
		case field.Kind() == protoreflect.Int64Kind && !field.IsList() && (field.Name() == "ID" || field.Name() == "lease"):
			if other, ok := ids[value.Int()]; ok {
				m.Set(field, protoreflect.ValueOfInt64(other))
			}
		}
		return true
	})
}
