package differential

import (
	"bytes"
	"cmp"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// What allow allows: seconds, and revisions.
const (
	ttlSlackS   = 2
	headerSlack = 20
)

// present stands for a number that each system chooses for itself, where it is not 0.
const present = 1

// Normalize takes out of a response what two right systems may say differently, and nothing else:
//   - cluster id, member id and raft term of the header: only whether they are there counts;
//   - the order of leases and of a lease's keys, which etcd takes from a map or from expiry times.
func Normalize(message proto.Message) {
	if m, ok := message.(interface{ GetHeader() *pb.ResponseHeader }); ok && m.GetHeader() != nil {
		h := m.GetHeader()
		for _, id := range []*uint64{&h.ClusterId, &h.MemberId, &h.RaftTerm} {
			if *id != 0 {
				*id = present
			}
		}
	}
	switch m := message.(type) {
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(m.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(m.Keys, bytes.Compare)
	}
}

// Equal compares two normalized outcomes, ours with etcd's.
func Equal(ours, etcds Outcome) bool {
	if ours.Code != etcds.Code || ours.Text != etcds.Text || (ours.Response == nil) != (etcds.Response == nil) {
		return false
	}
	if ours.Response == nil {
		return true
	}
	if proto.Equal(ours.Response, etcds.Response) {
		return true
	}
	o := proto.Clone(ours.Response)
	allow(o, etcds.Response)
	return proto.Equal(o, etcds.Response)
}

// allow makes ours equal to etcd's where the difference is one of those that may be:
//   - the rest of a lease, by ttlSlackS: the two systems are asked at different moments;
//   - the revision in the header of a keepalive's answer: the lease's owner answers from memory, for which the newest
//     revision may still be on its way. It may be older than etcd's by headerSlack, never newer.
func allow(ours, etcds proto.Message) {
	switch o := ours.(type) {
	case *pb.LeaseTimeToLiveResponse:
		e, ok := etcds.(*pb.LeaseTimeToLiveResponse)
		if ok && o.TTL > 0 && e.TTL > 0 && max(o.TTL-e.TTL, e.TTL-o.TTL) <= ttlSlackS && o.TTL <= o.GrantedTTL {
			o.TTL = e.TTL
		}
	case *pb.LeaseKeepAliveResponse:
		e, ok := etcds.(*pb.LeaseKeepAliveResponse)
		if behind := e.GetHeader().GetRevision() - o.GetHeader().GetRevision(); ok && behind >= 0 && behind <= headerSlack {
			o.Header.Revision = e.GetHeader().GetRevision()
		}
	}
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
