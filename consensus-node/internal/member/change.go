package member

import (
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// LearnersMax is how many learners a cluster may have at a time: etcd's
// default. It is no setting, since apply must come to the same answer on every
// node.
const LearnersMax = 1

// ContextVersion is the version of the context that ConfChange writes.
const ContextVersion = 1

// ErrConfChange is wrapped by the errors for configuration changes that no
// version of this program proposes: the log is damaged, or newer.
var ErrConfChange = errors.New("member: configuration change that is not understood")

// ErrNotEnoughStarted refuses a change that would leave fewer started members
// than a quorum. etcd's text; the code is that of its server, which passes on
// an error without one.
var ErrNotEnoughStarted = status.Error(codes.Unknown, rpctypes.ErrMemberNotEnoughStarted.Error())

// Kind is what a configuration change does.
type Kind int

// The kinds. Add takes a voter or, if the context says so, a learner.
const (
	Add Kind = iota + 1
	Promote
	Remove
	Update
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case Add:
		return "add"
	case Promote:
		return "promote"
	case Remove:
		return "remove"
	case Update:
		return "update"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// ConfChange returns the raft entry data for a change. The context's version
// and promote flag are set here; the rest is the caller's: proposal id, member
// id and, for Add and Update, the URLs.
func ConfChange(kind Kind, mc *journalv1.MemberContext) (*raftpb.ConfChangeV2, error) {
	mc = proto.CloneOf(mc)
	mc.Version, mc.Promote = ContextVersion, kind == Promote
	var typ raftpb.ConfChangeType
	switch {
	case kind == Add && mc.Learner:
		typ = raftpb.ConfChangeAddLearnerNode
	case kind == Add, kind == Promote:
		typ = raftpb.ConfChangeAddNode
	case kind == Remove:
		typ = raftpb.ConfChangeRemoveNode
	case kind == Update:
		typ = raftpb.ConfChangeUpdateNode
	default:
		return nil, fmt.Errorf("%w: %v", ErrConfChange, kind)
	}
	context, err := proto.Marshal(mc)
	if err != nil {
		return nil, fmt.Errorf("member: encoding the context: %w", err)
	}
	return &raftpb.ConfChangeV2{
		Changes: []*raftpb.ConfChangeSingle{{Type: typ.Enum(), NodeId: new(mc.MemberId)}},
		Context: context,
	}, nil
}

// Parse returns the kind of a configuration change and its context. A kind of
// 0 and no context mean that the change is raft's own (the empty one that
// leaves a joint configuration) and touches no member.
//
// Errors: ErrConfChange, wrapped; the process must end rather than guess.
func Parse(cc *raftpb.ConfChangeV2) (Kind, *journalv1.MemberContext, error) {
	if len(cc.GetChanges()) == 0 {
		return 0, nil, nil
	}
	if len(cc.GetChanges()) > 1 {
		return 0, nil, fmt.Errorf("%w: %d changes in one", ErrConfChange, len(cc.GetChanges()))
	}
	mc := &journalv1.MemberContext{}
	if err := proto.Unmarshal(cc.GetContext(), mc); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrConfChange, err)
	}
	change := cc.GetChanges()[0]
	if mc.GetVersion() != ContextVersion || mc.GetMemberId() == 0 || mc.GetMemberId() != change.GetNodeId() {
		return 0, nil, fmt.Errorf("%w: context of version %d for member %x in a change of %x",
			ErrConfChange, mc.GetVersion(), mc.GetMemberId(), change.GetNodeId())
	}
	kind, learner := Kind(0), false
	switch change.GetType() {
	case raftpb.ConfChangeAddNode:
		kind = Add
		if mc.GetPromote() {
			kind = Promote
		}
	case raftpb.ConfChangeAddLearnerNode:
		kind, learner = Add, true
	case raftpb.ConfChangeRemoveNode:
		kind = Remove
	case raftpb.ConfChangeUpdateNode:
		kind = Update
	}
	if kind == 0 || (kind == Add && learner != mc.GetLearner()) || (kind != Promote && mc.GetPromote()) {
		return 0, nil, fmt.Errorf("%w: type %v", ErrConfChange, change.GetType())
	}
	return kind, mc, nil
}

// Neutral returns what raft gets in place of a change that was refused: the
// same change of node 0, which raft takes note of and does not carry out. An
// empty change would not do, it means leaving a joint configuration.
func Neutral(cc *raftpb.ConfChangeV2) *raftpb.ConfChangeV2 {
	out := &raftpb.ConfChangeV2{Transition: cc.Transition}
	for _, change := range cc.GetChanges() {
		out.Changes = append(out.Changes, &raftpb.ConfChangeSingle{Type: change.Type, NodeId: new(uint64)})
	}
	return out
}

// Apply returns the list after a change, and the member that was added,
// changed or removed. It is also the check at the proposal.
//
// Errors, as etcd's: ErrGRPCMemberNotFound, for a removed id too;
// ErrGRPCMemberExist; ErrGRPCPeerURLExist; ErrGRPCMemberNotLearner;
// ErrGRPCTooManyLearners; and ErrNotEnoughStarted for the last voter,
// without which raft cannot be.
func (l *List) Apply(kind Kind, mc *journalv1.MemberContext) (*List, Member, error) {
	id := mc.GetMemberId()
	m, exists := l.Get(id)
	if l.IsRemoved(id) || (!exists && kind != Add) {
		return nil, Member{}, rpctypes.ErrGRPCMemberNotFound
	}
	switch kind {
	case Add:
		return l.add(mc, exists)
	case Promote:
		if !m.Learner {
			return nil, Member{}, rpctypes.ErrGRPCMemberNotLearner
		}
		m.Learner = false
		return l.with(m), m, nil
	case Remove:
		if voters, _ := l.Voters(); voters == 1 && !m.Learner {
			return nil, Member{}, ErrNotEnoughStarted
		}
		return l.without(id), m, nil
	case Update:
		if l.urlTaken(mc.GetPeerUrls(), id) {
			return nil, Member{}, rpctypes.ErrGRPCPeerURLExist
		}
		m.PeerURLs = mc.GetPeerUrls()
		return l.with(m), m, nil
	}
	return nil, Member{}, fmt.Errorf("%w: %v", ErrConfChange, kind)
}

func (l *List) add(mc *journalv1.MemberContext, exists bool) (*List, Member, error) {
	switch {
	case exists:
		return nil, Member{}, rpctypes.ErrGRPCMemberExist
	case l.urlTaken(mc.GetPeerUrls(), 0):
		return nil, Member{}, rpctypes.ErrGRPCPeerURLExist
	}
	voters, _ := l.Voters()
	if mc.GetLearner() && len(l.members)-voters >= LearnersMax {
		return nil, Member{}, rpctypes.ErrGRPCTooManyLearners
	}
	m := Member{
		ID: mc.GetMemberId(), Name: mc.GetName(), Learner: mc.GetLearner(),
		PeerURLs: mc.GetPeerUrls(), ClientURLs: mc.GetClientUrls(),
	}
	return l.with(m), m, nil
}

// urlTaken says whether a member other than except has one of the URLs.
func (l *List) urlTaken(urls []string, except uint64) bool {
	for _, m := range l.members {
		if m.ID == except {
			continue
		}
		if slices.ContainsFunc(m.PeerURLs, func(u string) bool { return slices.Contains(urls, u) }) {
			return true
		}
	}
	return false
}

// CheckQuorum is etcd's check at the proposal that a change leaves enough
// members which have started for a quorum (strict reconfiguration).
//
// Errors: ErrNotEnoughStarted.
func (l *List) CheckQuorum(kind Kind, mc *journalv1.MemberContext) error {
	voters, started := l.Voters()
	switch kind {
	case Add:
		if mc.GetLearner() {
			return nil
		}
		voters++
		if started == 1 && voters == 2 {
			return nil // one member grows to two: how a cluster is rebuilt
		}
	case Promote:
		voters, started = voters+1, started+1
	case Remove:
		m, ok := l.Get(mc.GetMemberId())
		if m.Learner {
			return nil
		}
		if ok {
			voters--
		}
		if m.Started() {
			started--
		}
	case Update:
		return nil
	}
	if started < voters/2+1 {
		return ErrNotEnoughStarted
	}
	return nil
}
