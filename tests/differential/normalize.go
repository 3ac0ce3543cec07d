package differential

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Normalize takes out of a response what MustDiffer says of single fields, and nothing else.
func Normalize(message proto.Message) {
	walk(message.ProtoReflect(), fields(func(e Exception) bool { return e.blur != nil }),
		func(e Exception, m protoreflect.Message, field protoreflect.FieldDescriptor) { e.blur(m, field) })
}

// walk calls fn for each field that is set and named, those of inner messages first.
func walk(m protoreflect.Message, named map[string]Exception, fn func(Exception, protoreflect.Message, protoreflect.FieldDescriptor)) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			for i := range value.List().Len() {
				walk(value.List().Get(i).Message(), named, fn)
			}
		case field.Message() != nil && !field.IsMap():
			walk(value.Message(), named, fn)
		}
		if e, ok := named[fieldName(field)]; ok {
			fn(e, m, field)
		}
		return true
	})
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

// Equal compares two normalized outcomes of a request, ours with etcd's.
func Equal(op Op, ours, etcds Outcome, c *clocks) bool {
	same := func() bool {
		return ours.Code == etcds.Code && ours.Text == etcds.Text && (ours.Response == nil) == (etcds.Response == nil) &&
			(ours.Response == nil || proto.Equal(ours.Response, etcds.Response))
	}
	if same() {
		return true
	}
	if ours.Response != nil {
		ours.Response = proto.Clone(ours.Response)
	}
	for _, e := range MustDiffer() {
		if e.allow != nil && (e.allow(c, op, ours, etcds) || same()) {
			return true
		}
	}
	return false
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

// revisionOf is the revision in the header of a response, 0 without one.
func revisionOf(o Outcome) int64 {
	if m, ok := o.Response.(interface{ GetHeader() *pb.ResponseHeader }); ok && o.Response != nil {
		return m.GetHeader().GetRevision()
	}
	return 0
}

// leaseIDs are the leases whose ids the two systems chose themselves, from the one's id to the other's.
type leaseIDs map[int64]int64

// inRequest replaces the ids wherever a request names a lease, inResponse where MustDiffer says that they are drawn.
func (ids leaseIDs) inRequest(message proto.Message) {
	ids.translate(message, map[string]Exception{
		"LeaseRevokeRequest.ID": {}, "LeaseKeepAliveRequest.ID": {}, "LeaseTimeToLiveRequest.ID": {}, "LeaseGrantRequest.ID": {},
	})
}

func (ids leaseIDs) inResponse(message proto.Message) {
	ids.translate(message, fields(func(e Exception) bool { return e.drawn }))
}

func (ids leaseIDs) translate(message proto.Message, named map[string]Exception) {
	if len(ids) == 0 {
		return
	}
	walk(message.ProtoReflect(), named, func(_ Exception, m protoreflect.Message, field protoreflect.FieldDescriptor) {
		if other, ok := ids[m.Get(field).Int()]; ok {
			m.Set(field, protoreflect.ValueOfInt64(other))
		}
	})
}
