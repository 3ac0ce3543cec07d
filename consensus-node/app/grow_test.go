package app

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/direct"
	"github.com/holdfastdb/holdfast/services/failure"
)

// askLeader makes one call through whoever leads, again for as long as it is surely not done.
func askLeader(t *testing.T, members []*member3, c *consensusv1.Call) *consensusv1.Answer {
	t.Helper()
	for range 200 {
		answer := newCaller(t, leaderOf(t, members).calls).do(c)[0]
		if !answer.GetNotProposed() {
			return answer
		}
	}
	t.Fatal("no leader answers")
	return nil
}

// change is a call about members that must succeed.
func change[T any, M interface {
	*T
	GetMembers() []*pb.Member
	proto.Message
}](t *testing.T, members []*member3, c *consensusv1.Call) M {
	t.Helper()
	return read[T, M](t, askLeader(t, members, c))
}

// joiner adds a member to the running ones and gives it, ready to be started.
func joiner(t *testing.T, members []*member3, name string, learner bool) (*member3, uint64) {
	t.Helper()
	m := newcomer(t, members, name)
	added := change[pb.MemberAddResponse](t, members, call(t, consensusv1.Method_METHOD_MEMBER_ADD, &pb.MemberAddRequest{
		PeerURLs: []string{"http://" + m.address}, IsLearner: learner,
	}))
	require.Equal(t, learner, added.GetMember().GetIsLearner())
	return m, added.GetMember().GetID()
}

// newcomer is a member that knows of the running ones and that they do not know of.
func newcomer(t *testing.T, members []*member3, name string) *member3 {
	t.Helper()
	listener := listen(t, "127.0.0.1:0")
	url := "http://" + listener.Addr().String()
	cluster := []string{name + "=" + url}
	for _, m := range members {
		cluster = append(cluster, m.cfg.Name+"=http://"+m.address)
	}
	m := &member3{t: t, address: listener.Addr().String(), cfg: testConfig(t, t.TempDir(), "--name="+name, "--initial-cluster-state=existing",
		"--initial-cluster="+strings.Join(cluster, ","), "--initial-advertise-peer-urls="+url, "--listen-peer-urls="+url)}
	if len(members) > 0 {
		m.cfg.ElectionMs = members[0].cfg.ElectionMs
	}
	require.NoError(t, listener.Close())
	t.Cleanup(func() { require.NoError(t, m.stop()) })
	return m
}

// join starts a member that was added.
func (m *member3) join() {
	m.t.Helper()
	require.NoError(m.t, Join(m.t.Context(), m.cfg, slog.New(slog.DiscardHandler)))
	m.start(listen(m.t, m.address))
}

// awaitEnd waits until the node ends by itself and gives its error.
func (m *member3) awaitEnd() error {
	m.t.Helper()
	select {
	case err := <-m.done:
		m.running = false
		m.calls.Close()
		require.NoError(m.t, m.node.Close())
		return err
	case <-time.After(20 * time.Second):
		m.t.Fatal("the node goes on")
		return nil
	}
}

// staysOut starts a member that was removed again: it ends at once if it has seen the entry, and else when the others tell it.
func (m *member3) staysOut() {
	m.t.Helper()
	node, err := Open(m.cfg, discarding())
	if err != nil {
		require.Equal(m.t, failure.ExitRemoved, failure.ExitCode(err), "%v", err)
		return
	}
	require.NoError(m.t, node.Close())
	m.start(listen(m.t, m.address))
	require.Equal(m.t, failure.ExitRemoved, failure.ExitCode(m.awaitEnd()))
}

// awaitConnected waits until the leader counts every other voter as connected.
func awaitConnected(t *testing.T, members []*member3, others int) {
	t.Helper()
	require.Eventually(t, func() bool {
		leader, n := leaderOf(t, members), 0
		for id := range leader.node.raftPeers(t) {
			if since := leader.node.transport.ActiveSince(id); !since.IsZero() && time.Since(since) > leader.cfg.healthInterval {
				n++
			}
		}
		return n >= others
	}, 20*time.Second, 5*time.Millisecond)
}

func (n *Node) raftPeers(t *testing.T) map[uint64]bool {
	t.Helper()
	peers, err := n.raft.Peers(context.Background())
	require.NoError(t, err)
	ids := map[uint64]bool{}
	for id := range peers {
		ids[id] = true
	}
	return ids
}

// A cluster grows by a learner, which catches up and is promoted, and by a voter; its first leader is removed, hands over before it goes,
// ends with the code for that, and does not come back. All that were written stays.
func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--election-timeout=2000") // long enough for leadership to be handed over on a busy machine
	for i := range 20 {
		put(t, members, fmt.Sprintf("before-%d", i))
	}
	awaitNames(t, members)
	awaitConnected(t, members, 2)

	learner, learnerID := joiner(t, members, "n4", true)
	promote := call(t, consensusv1.Method_METHOD_MEMBER_PROMOTE, &pb.MemberPromoteRequest{ID: learnerID})
	answer := askLeader(t, members, promote)
	require.Equal(t, "etcdserver: can only promote a learner member which is in sync with leader", answer.GetMessage())
	learner.join()
	require.Eventually(t, func() bool { return askLeader(t, members, promote).GetCode() == 0 }, 20*time.Second, 20*time.Millisecond)
	members = append(members, learner)
	answer = askLeader(t, members, promote)
	require.Equal(t, "etcdserver: can only promote a learner member", answer.GetMessage())
	awaitNames(t, members)
	awaitConnected(t, members, 3)

	first := leaderOf(t, members)
	remove := call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: first.node.memberID})
	said := newCaller(t, first.calls).do(remove)[0]
	require.True(t, said.GetNotProposed(), "it hands over first: %s", said.GetMessage())
	require.NotEqual(t, first.node.memberID, said.GetLeader())
	removed := change[pb.MemberRemoveResponse](t, members, remove)
	require.Len(t, removed.GetMembers(), 3)
	err := first.awaitEnd()
	require.Equal(t, failure.ExitRemoved, failure.ExitCode(err), "%v", err)
	first.staysOut()

	var rest []*member3
	for _, m := range members {
		if m != first {
			rest = append(rest, m)
		}
	}
	require.Equal(t, codes.NotFound, codes.Code(askLeader(t, rest, remove).GetCode()), "a second time")
	awaitConnected(t, rest, 2)
	last, _ := joiner(t, rest, "n5", false)
	last.join()
	rest = append(rest, last)
	revision := put(t, rest, "after")
	equalHashes(t, rest, revision)
	awaitNames(t, rest)
}

// A member that missed its own removal is told by the others, whatever it was asked to do meanwhile.
func TestAMemberThatMissedItsRemovalIsTold(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	leader := leaderOf(t, members)
	var away *member3
	var rest []*member3
	for _, m := range members {
		if away == nil && m != leader {
			away = m
			continue
		}
		rest = append(rest, m)
	}
	id := away.node.memberID
	require.NoError(t, away.stop())
	change[pb.MemberRemoveResponse](t, rest, call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: id}))
	for range 2 {
		away.start(listen(t, away.address))
		require.Equal(t, failure.ExitRemoved, failure.ExitCode(away.awaitEnd()))
	}
	put(t, rest, "b")
}

// A member that was away while all others were replaced answers whoever leads now, although its own list does not have it.
func TestAMemberThatWasAwayFindsTheNewOnes(t *testing.T) {
	t.Parallel()
	members := newCluster(t, "--strict-reconfig-check=false") // with one member away it refuses to grow
	put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	leader := leaderOf(t, members)
	var away *member3
	var originals []*member3
	for _, m := range members {
		if away == nil && m != leader {
			away = m
			continue
		}
		originals = append(originals, m)
	}
	require.NoError(t, away.stop())
	now := originals
	for i := range 2 {
		added, _ := joiner(t, append(slices.Clip(now), away), fmt.Sprintf("new%d", i), false)
		added.cfg.StrictReconfig = false
		added.join()
		now = append(now, added)
		require.Eventually(t, func() bool { return added.node.Listed() }, 20*time.Second, 5*time.Millisecond)
	}
	for range originals {
		gone := now[0]
		change[pb.MemberRemoveResponse](t, now, call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: gone.node.memberID}))
		require.Equal(t, failure.ExitRemoved, failure.ExitCode(gone.awaitEnd()))
		now = now[1:]
	}
	away.start(listen(t, away.address))
	now = append(now, away)
	equalHashes(t, now, put(t, now, "b"))
}

// Joining is refused in one line that says what to do: nobody there, not added, other flags than the cluster's, a member that ran before.
func TestJoiningIsRefused(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	logger := slog.New(slog.DiscardHandler)
	refused := func(m *member3, within time.Duration) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), within)
		defer cancel()
		err := Join(ctx, m.cfg, logger)
		require.Equal(t, failure.ExitInput, failure.ExitCode(err))
		require.NotContains(t, err.Error(), "\n")
		require.NoDirExists(t, m.cfg.DataDir+"/member", "nothing is written")
		return err.Error()
	}
	early := newcomer(t, members, "n4")
	url := "http://" + early.address
	require.Contains(t, refused(early, time.Minute), "add it first, with \"etcdctl member add n4 --peer-urls="+url+"\"")
	_, err := Open(early.cfg, discarding())
	require.Equal(t, failure.ExitInput, failure.ExitCode(err), "without asking")

	change[pb.MemberAddResponse](t, members, call(t, consensusv1.Method_METHOD_MEMBER_ADD, &pb.MemberAddRequest{PeerURLs: []string{url}}))
	short := newcomer(t, members[:2], "n4")
	short.cfg.InitialCluster = strings.ReplaceAll(short.cfg.InitialCluster, short.address, early.address)
	require.Contains(t, refused(short, time.Minute), "--initial-cluster is not what the cluster consists of: set it to ")

	again := newcomer(t, members[1:], "n1")
	again.cfg.InitialCluster = strings.ReplaceAll(again.cfg.InitialCluster, again.address, members[0].address)
	require.Contains(t, refused(again, time.Minute), "has run before")

	nobody := newcomer(t, []*member3{newcomer(t, nil, "gone")}, "n5")
	require.Contains(t, refused(nobody, 500*time.Millisecond), "no member of the cluster to join answers at ")
	alone := newcomer(t, nil, "n6")
	require.Contains(t, refused(alone, 500*time.Millisecond), "needs the other members in --initial-cluster")
}

// A member that joined and was ended before it heard anything goes on from there, and is told if it was removed meanwhile.
func TestAJoinedMemberThatHeardNothing(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	m, id := joiner(t, members, "n4", true)
	created := func() {
		t.Helper()
		require.NoError(t, Join(t.Context(), m.cfg, slog.New(slog.DiscardHandler)))
		node, err := Open(m.cfg, discarding())
		require.NoError(t, err)
		require.Equal(t, id, node.memberID)
		require.NoError(t, node.Close())
	}
	created()
	created()
	m.join()
	require.Eventually(t, m.node.Listed, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, m.stop())
	m.start(listen(t, m.address))
	equalHashes(t, append(members, m), put(t, members, "b"))
	require.True(t, m.node.raft.Status().Learner)

	change[pb.MemberRemoveResponse](t, members, call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: id}))
	require.Equal(t, failure.ExitRemoved, failure.ExitCode(m.awaitEnd()))
	lost, lostID := joiner(t, members, "n5", true)
	require.NoError(t, Join(t.Context(), lost.cfg, slog.New(slog.DiscardHandler)))
	node, err := Open(lost.cfg, discarding())
	require.NoError(t, err)
	require.NoError(t, node.Close())
	change[pb.MemberRemoveResponse](t, members, call(t, consensusv1.Method_METHOD_MEMBER_REMOVE, &pb.MemberRemoveRequest{ID: lostID}))
	require.NoError(t, Join(t.Context(), lost.cfg, slog.New(slog.DiscardHandler)))
	_, err = Open(lost.cfg, discarding())
	require.Equal(t, failure.ExitRemoved, failure.ExitCode(err), "%v", err)
}

// A voter that has joined and knows nothing yet serves no read, though any lag would be allowed for a serializable one: it has not been a
// member at the time of which its state is.
func TestANewVoterServesNothingBeforeItIsAMember(t *testing.T) {
	t.Parallel()
	members := newCluster(t)
	put(t, members, "a")
	awaitNames(t, members)
	awaitConnected(t, members, 2)
	m, _ := joiner(t, members, "n4", false)
	require.NoError(t, Join(t.Context(), m.cfg, slog.New(slog.DiscardHandler)))
	n, err := Open(m.cfg, discarding())
	require.NoError(t, err)
	inProcess := direct.New(Program)
	n.RegisterConsensus(inProcess)
	answer := newCaller(t, inProcess).do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("a"), Serializable: true}))[0]
	require.True(t, answer.GetNotProposed())
	require.NotZero(t, answer.GetCode())
	inProcess.Close()
	require.NoError(t, n.Close())
}
