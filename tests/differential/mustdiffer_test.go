package differential

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// fill sets every field of a message to something, transactions within transactions once.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		switch {
		case field.Message() != nil && depth == 0:
		case field.IsList() && field.Message() != nil:
			list := m.Mutable(field).List()
			for range 2 {
				fill(list.AppendMutable().Message(), depth-1)
			}
		case field.IsList():
			list := m.Mutable(field).List()
			list.Append(other(field, protoreflect.Value{}, 1))
			list.Append(other(field, protoreflect.Value{}, 2))
		case field.Message() != nil:
			fill(m.Mutable(field).Message(), depth-1)
		default:
			m.Set(field, other(field, protoreflect.Value{}, int64(field.Number())))
		}
	}
}

// other is a value that is by so much another one; without one it is a first one.
func other(field protoreflect.FieldDescriptor, v protoreflect.Value, by int64) protoreflect.Value {
	switch field.Kind() { //nolint:exhaustive // no other is in the API
	case protoreflect.StringKind:
		if !v.IsValid() {
			return protoreflect.ValueOfString(fmt.Sprint("text ", by))
		}
		return protoreflect.ValueOfString(v.String() + "!")
	case protoreflect.BytesKind:
		if !v.IsValid() {
			return protoreflect.ValueOfBytes(fmt.Append(nil, by))
		}
		return protoreflect.ValueOfBytes(append([]byte("!"), v.Bytes()...))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!v.IsValid() || !v.Bool())
	case protoreflect.EnumKind:
		if !v.IsValid() {
			return protoreflect.ValueOfEnum(1)
		}
		return protoreflect.ValueOfEnum(v.Enum() + 1)
	case protoreflect.Int64Kind:
		if !v.IsValid() {
			return protoreflect.ValueOfInt64(1000 + by)
		}
		return protoreflect.ValueOfInt64(v.Int() + by)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1000)
	case protoreflect.Uint32Kind:
		if !v.IsValid() {
			return protoreflect.ValueOfUint32(1000)
		}
		return protoreflect.ValueOfUint32(uint32(v.Uint()) + 1)
	case protoreflect.Uint64Kind:
		if !v.IsValid() {
			return protoreflect.ValueOfUint64(uint64(1000 + by))
		}
		return protoreflect.ValueOfUint64(uint64(int64(v.Uint()) + by))
	}
	panic("a field of kind " + field.Kind().String())
}

// place is a field of a message, or of one within it.
type place struct {
	path string // from the response on
	name string // of the field in its message
	list bool
	// change makes the field another one, by so much where it is a number; empty takes it away.
	change func(root protoreflect.Message, by int64)
	empty  func(root protoreflect.Message)
}

// places are all fields of a filled message.
func places(m protoreflect.Message, path string, find func(root protoreflect.Message) protoreflect.Message) (all []place) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		p := place{
			path: path + "." + string(field.Name()), name: fieldName(field), list: field.IsList(),
			empty: func(root protoreflect.Message) { find(root).Clear(field) },
		}
		switch {
		case field.IsList() && field.Message() != nil:
			p.change = func(root protoreflect.Message, _ int64) { find(root).Mutable(field).List().Truncate(1) }
			all = append(all, places(v.List().Get(1).Message(), p.path, func(root protoreflect.Message) protoreflect.Message {
				return find(root).Mutable(field).List().Get(1).Message()
			})...)
		case field.IsList():
			p.change = func(root protoreflect.Message, by int64) {
				list := find(root).Mutable(field).List()
				list.Set(1, other(field, list.Get(1), by))
			}
		case field.Message() != nil:
			p.change = func(root protoreflect.Message, _ int64) { p.empty(root) }
			all = append(all, places(v.Message(), p.path, func(root protoreflect.Message) protoreflect.Message {
				return find(root).Mutable(field).Message()
			})...)
		default:
			p.change = func(root protoreflect.Message, by int64) {
				find(root).Set(field, other(field, find(root).Get(field), by))
			}
		}
		all = append(all, p)
		return true
	})
	return all
}

func itself(root protoreflect.Message) protoreflect.Message { return root }

// compared makes two copies of a response, changes ours, and tells whether they count as the same.
func compared(filled proto.Message, change func(protoreflect.Message)) (same bool) {
	ours, etcds := proto.Clone(filled), proto.Clone(filled)
	change(ours.ProtoReflect())
	Normalize(ours)
	Normalize(etcds)
	// The newest revision is what the header says, and was one less a moment ago.
	head := revisionOf(Outcome{Response: filled})
	c := &clocks{heads: []headAt{{head - 1, time.Now()}, {head, time.Now()}}}
	return Equal(Op{methodRange, &pb.RangeRequest{}}, Outcome{Response: ours}, Outcome{Response: etcds}, c)
}

// A change to any field of any response is found, unless MustDiffer names the field; and what it names is no more than it says.
func TestEveryFieldIsCompared(t *testing.T) {
	const little, much = -1, 1 << 40
	blurred := fields(func(e Exception) bool { return e.blur != nil })
	allowed := fields(func(e Exception) bool { return e.allow != nil })
	met := map[string]bool{}
	for method, filled := range responses() {
		fill(filled.ProtoReflect(), 4)
		for _, p := range places(filled.ProtoReflect(), string(filled.ProtoReflect().Descriptor().Name()), itself) {
			same := func(by int64) bool {
				return compared(filled, func(m protoreflect.Message) { p.change(m, by) })
			}
			met[p.name], met[p.path] = true, true
			_, blur := blurred[p.name]
			_, allow := allowed[p.path]
			require.False(t, compared(filled, p.empty), "%s without %s", method, p.path)
			require.Equal(t, blur && !p.list, same(much), "%s with another %s", method, p.path)
			require.Equal(t, blur && !p.list || allow, same(little), "%s with another %s", method, p.path)
			require.Equal(t, blur && !p.list, same(-much), "%s with another %s", method, p.path)
		}
	}
	for _, e := range MustDiffer() {
		for _, name := range e.What {
			require.True(t, e.instead != nil || e.watch != nil || met[name] || !strings.Contains(name, "Response."), "no response has %s", name)
		}
	}
}

// Of lists and texts only the order and the spaces do not count.
func TestOrderAndSpaces(t *testing.T) {
	leases := &pb.LeaseLeasesResponse{Leases: []*pb.LeaseStatus{{ID: 1}, {ID: 2}}}
	keys := &pb.LeaseTimeToLiveResponse{Keys: [][]byte{[]byte("a"), []byte("b")}}
	state := &pb.StatusResponse{Errors: []string{"memberID:1  alarm:NOSPACE"}}
	require.True(t, compared(leases, func(m protoreflect.Message) { slices.Reverse(m.Interface().(*pb.LeaseLeasesResponse).Leases) }))
	require.True(t, compared(keys, func(m protoreflect.Message) { slices.Reverse(m.Interface().(*pb.LeaseTimeToLiveResponse).Keys) }))
	require.True(t, compared(state, func(m protoreflect.Message) {
		m.Interface().(*pb.StatusResponse).Errors[0] = "memberID:1 alarm:NOSPACE"
	}))
}

// An error's code and text are compared, but for a lease that either may have expired.
func TestErrorsAreCompared(t *testing.T) {
	revoke := Op{methodRevoke, &pb.LeaseRevokeRequest{ID: 7}}
	gone := Outcome{Code: codes.NotFound, Text: rpctypes.ErrorDesc(rpctypes.ErrGRPCLeaseNotFound)}
	done := Outcome{Response: &pb.LeaseRevokeResponse{}}
	old := &clocks{short: map[int64]time.Time{7: time.Now().Add(-2 * shortest)}}
	for _, c := range []*clocks{{}, {short: map[int64]time.Time{7: time.Now()}}, {short: map[int64]time.Time{8: time.Now().Add(-2 * shortest)}}} {
		require.False(t, Equal(revoke, gone, done, c))
		require.False(t, Equal(revoke, done, gone, c))
		require.True(t, Equal(revoke, gone, gone, c))
	}
	require.True(t, Equal(revoke, gone, done, old))
	require.True(t, Equal(revoke, done, gone, old))
	require.False(t, Equal(Op{methodTimeToLive, &pb.LeaseTimeToLiveRequest{ID: 7}}, done, gone, old))
	require.False(t, Equal(revoke, Outcome{Code: codes.NotFound, Text: "another text"}, gone, old))
	require.False(t, Equal(revoke, Outcome{Code: codes.Unknown, Text: gone.Text}, gone, &clocks{}))
}

// What is not asked comes up, and what is asked in its place is asked.
func TestWhatIsNotAsked(t *testing.T) {
	g := NewGenerator(1)
	g.head, g.compact, g.compactions = 50, 20, map[int64]bool{20: true, 50: true}
	for _, e := range MustDiffer() {
		if e.instead == nil {
			continue
		}
		times := 0
		for range 8000 {
			op := g.draw()
			drawn := proto.Clone(op.Request)
			asked := e.instead(g, op)
			if proto.Equal(asked.Request, drawn) {
				continue
			}
			times++
			after := proto.Clone(asked.Request)
			require.True(t, proto.Equal(after, e.instead(g, asked).Request), e.What)
		}
		require.Positive(t, times, e.What)
	}
}

// A change to any field of what a watch is told is found, unless MustDiffer names the field.
func TestEveryFieldOfAWatchIsCompared(t *testing.T) {
	header := &pb.ResponseHeader{ClusterId: 1, MemberId: 2, RaftTerm: 3, Revision: 10}
	event := func(key string, revision int64) *mvccpb.Event {
		kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte("v"), CreateRevision: 2, ModRevision: revision, Version: 3, Lease: 4}
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv, PrevKv: proto.Clone(kv).(*mvccpb.KeyValue)}
	}
	told := []*pb.WatchResponse{
		{Header: header, WatchId: 1, Created: true},
		{Header: header, WatchId: 1, Events: []*mvccpb.Event{event("a", 7), event("b", 8)}},
		{Header: header, WatchId: 1, Canceled: true, CancelReason: "reason", CompactRevision: 6},
	}
	listen := func(responses []*pb.WatchResponse) *watchLog {
		l := newWatchLog()
		for _, r := range responses {
			l.take(proto.Clone(r).(*pb.WatchResponse), nil)
		}
		return l
	}
	ignored := fields(func(e Exception) bool { return e.blur != nil || e.watch != nil })
	for i, r := range told {
		for _, p := range places(r.ProtoReflect(), "WatchResponse", itself) {
			if _, ok := ignored[p.name]; ok {
				continue
			}
			if _, ok := ignored[p.path]; ok && !r.GetCreated() {
				continue
			}
			changed := slices.Clone(told)
			changed[i] = proto.Clone(r).(*pb.WatchResponse)
			p.change(changed[i].ProtoReflect(), 1<<40)
			require.NotEmpty(t, differences(listen(changed), listen(told)), "response %d with another %s", i, p.path)
		}
	}
	require.Empty(t, differences(listen(told), listen(told)))
	// What is on the list is no more than it says.
	apart := []*pb.WatchResponse{
		told[0],
		{Header: &pb.ResponseHeader{ClusterId: 9, MemberId: 9, RaftTerm: 9, Revision: 7}, WatchId: 1, Fragment: true, Events: told[1].Events[:1]},
		{Header: header, WatchId: -1},
		{Header: header, WatchId: 1, Events: told[1].Events[1:]},
		told[2],
		told[2],
	}
	require.NotEmpty(t, differences(listen(apart), listen(told)), "an event at 8 after a notice at 10")
	apart[2].Header = &pb.ResponseHeader{ClusterId: 1, MemberId: 1, RaftTerm: 1, Revision: 7}
	require.Empty(t, differences(listen(apart), listen(told)))
	apart[1].Header.Revision = 6
	require.NotEmpty(t, differences(listen(apart), listen(told)), "an event above its header's revision")
}
