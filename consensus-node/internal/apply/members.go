package apply

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// ErrMembers is returned by Bootstrap for a state that has members or entries.
var ErrMembers = errors.New("apply: the cluster has begun already")

// Bootstrap gives a new cluster its first members, as if by an entry at an
// index, which must be above 0. Every first member does the same.
func (m *Machine) Bootstrap(index, term uint64, members []member.Member) (Batch, error) {
	if m.index != 0 || index == 0 || len(m.members.Members()) != 0 {
		return Batch{}, fmt.Errorf("%w: at index %d", ErrMembers, m.index)
	}
	s := m.begin(index, term, nil)
	m.members = member.NewList(append([]member.Member(nil), members...), nil, member.Version{})
	for _, mb := range m.members.Members() {
		if err := s.putMember(mb); err != nil {
			return Batch{}, err
		}
	}
	return s.finish().Batch, nil
}

func (s *step) putMember(mb member.Member) error {
	key, value, err := member.Row(mb)
	if err != nil {
		return err
	}
	s.res.Batch.put(member.Bucket, key, value)
	return nil
}

// ConfResult is what a configuration change led to.
type ConfResult struct {
	// Outcome is the proposer's; its ID is 0 for a change of raft's own.
	Outcome Outcome
	// Kind and Member say what was done; Kind is 0 if nothing was.
	Kind   member.Kind
	Member member.Member
	// Change is what raft is to carry out: the one given, or one without effect
	// if it was refused.
	Change *raftpb.ConfChangeV2
	// Batch awaits the ConfState that raft answers to Change.
	Batch Batch
}

// ApplyConf applies the configuration change entry at an index. What was
// refused leaves an Outcome with an error and changes nothing.
//
// Errors end the process: ErrIndex, and member.ErrConfChange for an entry that
// this program does not understand.
func (m *Machine) ApplyConf(index, term uint64, cc *raftpb.ConfChangeV2) (ConfResult, error) {
	if err := m.checkNext(index, term); err != nil {
		return ConfResult{}, err
	}
	kind, mc, err := member.Parse(cc)
	if err != nil {
		return ConfResult{}, fmt.Errorf("apply: entry %d: %w", index, err)
	}
	s := m.begin(index, term, nil)
	res := ConfResult{Change: cc, Outcome: Outcome{ID: mc.GetId()}}
	if kind != 0 {
		if err := s.changeMember(&res, kind, mc); err != nil {
			return ConfResult{}, fmt.Errorf("apply: entry %d: %w", index, err)
		}
	}
	res.Batch = s.finish().Batch
	return res, nil
}

func (s *step) changeMember(res *ConfResult, kind member.Kind, mc *journalv1.MemberContext) error {
	list, mb, err := s.m.members.Apply(kind, mc)
	if err != nil {
		res.Outcome.Err = err
		res.Change = member.Neutral(res.Change)
		return nil //nolint:nilerr // the outcome holds it
	}
	s.m.members = list
	res.Kind, res.Member = kind, mb
	if kind == member.Remove {
		s.res.Batch.remove(member.Bucket, member.RowKey(mb.ID))
		s.res.Batch.put(member.RemovedBucket, member.RowKey(mb.ID), []byte(member.RemovedMark))
	} else if err := s.putMember(mb); err != nil {
		return err
	}
	res.Outcome.Response = s.memberResponse(kind, mb)
	return nil
}

// memberResponse leaves the header's revision empty, as etcd does for all
// calls about members.
func (s *step) memberResponse(kind member.Kind, mb member.Member) proto.Message {
	header, members := &pb.ResponseHeader{RaftTerm: s.m.term}, s.m.members.Proto()
	switch kind {
	case member.Add:
		return &pb.MemberAddResponse{Header: header, Member: mb.Proto(), Members: members}
	case member.Promote:
		return &pb.MemberPromoteResponse{Header: header, Members: members}
	case member.Remove:
		return &pb.MemberRemoveResponse{Header: header, Members: members}
	case member.Update:
		return &pb.MemberUpdateResponse{Header: header, Members: members}
	}
	return nil
}

func (s *step) memberAttributes(cmd *journalv1.MemberAttributes) (answer, error) {
	list, mb, err := s.m.members.WithAttributes(cmd.GetId(), cmd.GetName(), cmd.GetClientUrls())
	if err != nil {
		return refused(err), nil
	}
	s.m.members = list
	return s.done(nil), s.putMember(mb)
}

func (s *step) clusterVersion(text string) (answer, error) {
	version, err := member.ParseVersion(text)
	if err != nil {
		return refused(err), nil
	}
	list, err := s.m.members.WithClusterVersion(version)
	if err != nil {
		return refused(err), nil
	}
	s.m.members = list
	s.res.Batch.put(member.ClusterBucket, []byte(member.VersionKey), []byte(version.String()))
	return s.done(nil), nil
}
