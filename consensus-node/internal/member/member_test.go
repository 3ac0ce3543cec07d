package member_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// Ids that etcd gives: its default single member, and the three of its
// Procfile.
func TestIDsAreEtcds(t *testing.T) {
	one, err := member.Initial("etcd-cluster", map[string][]string{"default": {"http://localhost:2380"}})
	require.NoError(t, err)
	require.Equal(t, uint64(0x8e9e05c52164694d), one[0].ID)
	require.Equal(t, uint64(0xcdf818194e3a8c32), member.ClusterID(one))

	three, err := member.Initial("etcd-cluster-1", map[string][]string{
		"infra1": {"http://127.0.0.1:12380"}, "infra2": {"http://127.0.0.1:22380"}, "infra3": {"http://127.0.0.1:32380"},
	})
	require.NoError(t, err)
	require.Equal(t, uint64(0x8211f1d0f64f3269), three[0].ID)
	require.Equal(t, uint64(0x91bc3c398fb3c146), three[1].ID)
	require.Equal(t, uint64(0xfd422379fda50e48), three[2].ID)
	require.Equal(t, uint64(0xef37ad9dc622a7c4), member.ClusterID(three))
}

func TestIDsDoNotDependOnOrder(t *testing.T) {
	require.Equal(t, member.InitialID([]string{"http://a:1", "http://b:1"}, "t"), member.InitialID([]string{"http://b:1", "http://a:1"}, "t"))
	require.NotEqual(t, member.NewID([]string{"http://a:1"}, 1), member.NewID([]string{"http://a:1"}, 2))
	urls := []string{"http://b:1", "http://a:1"}
	member.InitialID(urls, "t")
	require.Equal(t, []string{"http://b:1", "http://a:1"}, urls, "the caller's slice stays as it is")
}

func TestInitialRefusesEqualURLs(t *testing.T) {
	_, err := member.Initial("t", map[string][]string{"a": {"http://h:1"}, "b": {"http://h:1"}})
	require.EqualError(t, err, "members a and b have the same peer URLs")
}

func list(voters, learners int) *member.List {
	var members []member.Member
	for i := range voters + learners {
		members = append(members, member.Member{
			ID: uint64(100 + i), Name: "n", PeerURLs: []string{"http://h:" + string(rune('1'+i))}, Learner: i >= voters,
		})
	}
	return member.NewList(members, nil, member.Version{})
}

// Raft panics when its last voter goes, so apply must never let it.
func TestLastVoterStays(t *testing.T) {
	l := list(1, 1)
	_, _, err := l.Apply(member.Remove, &journalv1.MemberContext{MemberId: 100})
	require.Equal(t, member.ErrNotEnoughStarted, err)
	l, _, err = l.Apply(member.Remove, &journalv1.MemberContext{MemberId: 101})
	require.NoError(t, err, "a learner may go")
	require.Len(t, l.Members(), 1)
}

func TestListsNeverChange(t *testing.T) {
	l := list(2, 1)
	before := l.Proto()
	for kind, id := range map[member.Kind]uint64{member.Add: 7, member.Promote: 102, member.Remove: 100, member.Update: 101} {
		next, _, err := l.Apply(kind, &journalv1.MemberContext{MemberId: id, PeerUrls: []string{"http://new:1"}})
		require.NoError(t, err)
		require.NotEqual(t, before, next.Proto())
		require.Equal(t, before, l.Proto(), kind)
		require.Empty(t, l.Removed())
	}
	_, _, err := l.WithAttributes(100, "other", nil)
	require.NoError(t, err)
	require.Equal(t, before, l.Proto())
}

// Every member that comes or goes counts once, and nothing else does.
func TestChangesAreCounted(t *testing.T) {
	l := list(2, 1)
	at := l.Changes()
	for _, step := range []struct {
		kind  member.Kind
		id    uint64
		grows uint64
	}{{member.Add, 7, 1}, {member.Promote, 102, 0}, {member.Update, 101, 0}, {member.Remove, 100, 1}, {member.Remove, 102, 1}} {
		next, _, err := l.Apply(step.kind, &journalv1.MemberContext{MemberId: step.id, PeerUrls: []string{"http://new:" + step.kind.String()}})
		require.NoError(t, err)
		require.Equal(t, at+step.grows, next.Changes(), step.kind)
		l, at = next, next.Changes()
	}
}

func TestQuorum(t *testing.T) {
	unstarted := func(l *member.List, id uint64) *member.List {
		l, _, err := l.WithAttributes(id, "", nil)
		require.NoError(t, err)
		return l
	}
	for _, c := range []struct {
		name string
		l    *member.List
		kind member.Kind
		mc   *journalv1.MemberContext
		err  error
	}{
		{"one grows to two", list(1, 0), member.Add, &journalv1.MemberContext{MemberId: 7}, nil},
		{"three started", list(3, 0), member.Add, &journalv1.MemberContext{MemberId: 7}, nil},
		{"two of which one started", unstarted(list(2, 0), 101), member.Add, &journalv1.MemberContext{MemberId: 7}, member.ErrNotEnoughStarted},
		{"learners do not count", unstarted(list(2, 0), 101), member.Add, &journalv1.MemberContext{MemberId: 7, Learner: true}, nil},
		{"remove of one", list(1, 0), member.Remove, &journalv1.MemberContext{MemberId: 100}, member.ErrNotEnoughStarted},
		{"remove of three", list(3, 0), member.Remove, &journalv1.MemberContext{MemberId: 100}, nil},
		{"remove of a started one", unstarted(list(2, 0), 101), member.Remove, &journalv1.MemberContext{MemberId: 100}, member.ErrNotEnoughStarted},
		{"remove of the one that never started", unstarted(list(2, 0), 101), member.Remove, &journalv1.MemberContext{MemberId: 101}, nil},
		{"remove of nobody from a cluster that is short already", unstarted(list(2, 0), 101), member.Remove, &journalv1.MemberContext{MemberId: 7}, member.ErrNotEnoughStarted},
		{"promote", list(1, 1), member.Promote, &journalv1.MemberContext{MemberId: 101}, nil},
		{"update", unstarted(list(1, 0), 100), member.Update, &journalv1.MemberContext{MemberId: 100}, nil},
	} {
		require.Equal(t, c.err, c.l.CheckQuorum(c.kind, c.mc), c.name)
	}
}

func TestConfChangeRoundTrip(t *testing.T) {
	for _, kind := range []member.Kind{member.Add, member.Promote, member.Remove, member.Update} {
		for _, learner := range []bool{false, true} {
			if learner && kind != member.Add {
				continue
			}
			mc := &journalv1.MemberContext{Id: 9, MemberId: 5, Learner: learner, PeerUrls: []string{"http://h:1"}}
			cc, err := member.ConfChange(kind, mc)
			require.NoError(t, err)
			require.Zero(t, mc.Version, "the caller's context stays as it is")
			got, context, err := member.Parse(cc)
			require.NoError(t, err)
			require.Equal(t, kind, got)
			require.Equal(t, mc.PeerUrls, context.PeerUrls)
			require.Equal(t, learner, context.Learner)
			require.EqualValues(t, 9, context.Id)
			require.False(t, member.Neutral(cc).LeaveJoint(), "raft must not take it for the end of a joint configuration")
		}
	}
	_, err := member.ConfChange(0, &journalv1.MemberContext{})
	require.ErrorIs(t, err, member.ErrConfChange)
}

// A refused change must pass through raft without effect, whatever its kind.
func TestRaftPassesOverNeutralChanges(t *testing.T) {
	storage := raft.NewMemoryStorage()
	before := &raftpb.ConfState{Voters: []uint64{1, 2}, Learners: []uint64{3}}
	require.NoError(t, storage.ApplySnapshot(&raftpb.Snapshot{
		Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: before},
	}))
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, MaxInflightMsgs: 1, MaxSizePerMsg: 1, Applied: 1,
	})
	require.NoError(t, err)
	for _, kind := range []member.Kind{member.Add, member.Promote, member.Remove, member.Update} {
		for _, learner := range []bool{false, true} {
			cc, err := member.ConfChange(kind, &journalv1.MemberContext{MemberId: 2, Learner: learner})
			require.NoError(t, err)
			after := node.ApplyConfChange(member.Neutral(cc))
			require.Equal(t, before.Voters, after.Voters, kind)
			require.Equal(t, before.Learners, after.Learners, kind)
			require.Empty(t, after.VotersOutgoing, kind)
		}
	}
}

func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for name, spoil := range map[string]func(*raftpb.ConfChangeV2){
		"two changes":   func(cc *raftpb.ConfChangeV2) { cc.Changes = append(cc.Changes, cc.Changes[0]) },
		"no context":    func(cc *raftpb.ConfChangeV2) { cc.Context = nil },
		"garbage":       func(cc *raftpb.ConfChangeV2) { cc.Context = []byte{0xff} },
		"other member":  func(cc *raftpb.ConfChangeV2) { cc.Changes[0].NodeId = proto.Uint64(6) },
		"other kind":    func(cc *raftpb.ConfChangeV2) { cc.Changes[0].Type = raftpb.ConfChangeAddLearnerNode.Enum() },
		"unknown kind":  func(cc *raftpb.ConfChangeV2) { cc.Changes[0].Type = raftpb.ConfChangeType(9).Enum() },
		"wrong promote": func(cc *raftpb.ConfChangeV2) { cc.Changes[0].Type = raftpb.ConfChangeRemoveNode.Enum() },
	} {
		kind := member.Add
		if name == "wrong promote" {
			kind = member.Promote
		}
		cc, err := member.ConfChange(kind, &journalv1.MemberContext{MemberId: 5})
		require.NoError(t, err)
		spoil(cc)
		_, _, err = member.Parse(cc)
		require.ErrorIs(t, err, member.ErrConfChange, name)
	}
}

// The bytes are those of etcd's membership.Member.
func TestRows(t *testing.T) {
	m := member.Member{
		ID: 0x8e9e05c52164694d, Name: "default", Learner: true,
		PeerURLs: []string{"http://localhost:2380"}, ClientURLs: []string{"http://localhost:2379"},
	}
	key, value, err := member.Row(m)
	require.NoError(t, err)
	require.Equal(t, "8e9e05c52164694d", string(key))
	//nolint:testifylint // the order of the fields counts
	require.Equal(t, `{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"isLearner":true,`+
		`"name":"default","clientURLs":["http://localhost:2379"]}`, string(value))
	got, err := member.ParseRow(key, value)
	require.NoError(t, err)
	require.Equal(t, m, got)
	_, err = member.ParseRow([]byte("0"), value)
	require.ErrorIs(t, err, member.ErrRow)
	_, err = member.ParseRow(key, []byte("{"))
	require.ErrorIs(t, err, member.ErrRow)
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]string{"3.7": "3.7.0", "3.7.3": "3.7.0", "10.0.1": "10.0.0"} {
		v, err := member.ParseVersion(text)
		require.NoError(t, err)
		require.Equal(t, want, v.String())
	}
	for _, text := range []string{"", "3", "3.x", "3.7.0.1", "-3.7", "3.99999"} {
		_, err := member.ParseVersion(text)
		require.ErrorIs(t, err, member.ErrVersion, text)
	}
	require.Empty(t, member.Version{}.String())
}
