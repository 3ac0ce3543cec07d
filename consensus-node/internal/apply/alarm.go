package apply

import (
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// AlarmBucket is etcd's bucket of alarms: the encoded AlarmMember is the key,
// the value is empty.
const AlarmBucket = "alarm"

// Alarm is one alarm that a member raised.
type Alarm struct {
	Member uint64
	Type   pb.AlarmType
}

// Alarms are the alarms that are raised now, immutable, by type and member.
type Alarms []Alarm

func compareAlarms(a, b Alarm) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Member, b.Member))
}

// Has says whether any member raised an alarm of a type.
func (a Alarms) Has(t pb.AlarmType) bool {
	return slices.ContainsFunc(a, func(al Alarm) bool { return al.Type == t })
}

// Holds says whether exactly this alarm is raised.
func (a Alarms) Holds(al Alarm) bool { return slices.Contains(a, al) }

// Get returns the alarms of a type, and all of them for NONE.
func (a Alarms) Get(t pb.AlarmType) []*pb.AlarmMember {
	var out []*pb.AlarmMember
	for _, al := range a {
		if t == pb.AlarmType_NONE || al.Type == t {
			out = append(out, al.proto())
		}
	}
	return out
}

func (a Alarm) proto() *pb.AlarmMember { return &pb.AlarmMember{MemberID: a.Member, Alarm: a.Type} }

func (a Alarm) row() ([]byte, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(a.proto())
	if err != nil {
		return nil, fmt.Errorf("apply: encoding an alarm: %w", err)
	}
	return key, nil
}

func parseAlarm(key []byte) (Alarm, error) {
	var m pb.AlarmMember
	if err := proto.Unmarshal(key, &m); err != nil {
		return Alarm{}, fmt.Errorf("apply: alarm %x: %w", key, err)
	}
	return Alarm{Member: m.MemberID, Type: m.Alarm}, nil
}

// with and without return a changed copy, or false if nothing changes.
func (a Alarms) with(al Alarm) (Alarms, bool) {
	i, found := slices.BinarySearchFunc(a, al, compareAlarms)
	if found {
		return a, false
	}
	return slices.Insert(slices.Clone(a), i, al), true
}

func (a Alarms) without(al Alarm) (Alarms, bool) {
	i, found := slices.BinarySearchFunc(a, al, compareAlarms)
	if !found {
		return a, false
	}
	return slices.Delete(slices.Clone(a), i, i+1), true
}

// alarm answers as etcd does: what was raised or lowered by this call, also if
// it had been raised before.
func (s *step) alarm(req *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	m, al := s.m, Alarm{Member: req.MemberID, Type: req.Alarm}
	resp := &pb.AlarmResponse{Header: s.header()}
	switch {
	case req.Action == pb.AlarmRequest_GET:
		resp.Alarms = m.alarms.Get(req.Alarm)
	case req.Alarm == pb.AlarmType_NONE:
	case req.Action == pb.AlarmRequest_ACTIVATE:
		key, err := al.row()
		if err != nil {
			return nil, err
		}
		if alarms, changed := m.alarms.with(al); changed {
			m.alarms = alarms
			s.res.Batch.put(AlarmBucket, key, nil)
		}
		resp.Alarms = []*pb.AlarmMember{al.proto()}
	case req.Action == pb.AlarmRequest_DEACTIVATE:
		alarms, changed := m.alarms.without(al)
		if !changed {
			break
		}
		key, err := al.row()
		if err != nil {
			return nil, err
		}
		m.alarms = alarms
		s.res.Batch.remove(AlarmBucket, key)
		resp.Alarms = []*pb.AlarmMember{al.proto()}
	}
	return resp, nil
}
