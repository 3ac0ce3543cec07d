package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// exitRemoved is the exit code of a member that was removed.
const exitRemoved = 3

// healthyWithin bounds the wait until members have been connected for the 5 s that changes of the member list ask for.
const healthyWithin = 30 * time.Second

// answered asks for a change of the member list until it is answered, and gives the error of the answer. At first no member has been connected
// for long; and etcd lets a change wait in vain that comes too early after another, or after an election.
func answered(t *testing.T, change func(context.Context) error) error {
	t.Helper()
	const patience = 2 * time.Second
	var err error
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err = change(ctx)
		code := status.Code(err)
		return ctx.Err() == nil && code != codes.Unavailable && code != codes.DeadlineExceeded &&
			!errors.Is(err, rpctypes.ErrUnhealthy) && !errors.Is(err, context.DeadlineExceeded)
	}, healthyWithin, 100*time.Millisecond)
	return err
}

// add adds a member, which is reserved and not started.
func add(t *testing.T, c *framework.Cluster, client *clientv3.Client, name string, learner bool) *clientv3.MemberAddResponse {
	t.Helper()
	urls := []string{c.Reserve(t, name)}
	var added *clientv3.MemberAddResponse
	require.NoError(t, answered(t, func(ctx context.Context) (err error) {
		if learner {
			added, err = client.MemberAddAsLearner(ctx, urls)
		} else {
			added, err = client.MemberAdd(ctx, urls)
		}
		return err
	}))
	require.Equal(t, urls, added.Member.PeerURLs)
	require.Equal(t, learner, added.Member.IsLearner)
	require.Empty(t, added.Member.Name)
	require.Empty(t, added.Member.ClientURLs)
	require.Zero(t, added.Header.Revision)
	require.NotZero(t, added.Header.RaftTerm)
	require.True(t, slices.ContainsFunc(added.Members, func(m *pb.Member) bool { return m.ID == added.Member.ID }))
	require.True(t, slices.IsSortedFunc(added.Members, func(a, b *pb.Member) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	}))
	return added
}

// memberID finds a member by its name.
func memberID(t *testing.T, client *clientv3.Client, name string) uint64 {
	t.Helper()
	list, err := client.MemberList(bounded(t))
	require.NoError(t, err)
	for _, m := range list.Members {
		if m.Name == name {
			return m.ID
		}
	}
	t.Fatalf("no member is called %s: %v", name, list.Members)
	return 0
}

// remove removes a member. One that leads may end before it has answered; then it is not found when it is removed again.
func remove(t *testing.T, client *clientv3.Client, id uint64) {
	t.Helper()
	open := false
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), timeout/4)
		defer cancel()
		r, err := client.MemberRemove(ctx, id)
		switch {
		case err == nil:
			require.False(t, slices.ContainsFunc(r.Members, func(m *pb.Member) bool { return m.ID == id }))
			return true
		case errors.Is(err, rpctypes.ErrMemberNotFound):
			require.True(t, open)
			return true
		case !errors.Is(err, rpctypes.ErrUnhealthy):
			open = true
		}
		return false
	}, healthyWithin, 100*time.Millisecond)
}

// A cluster of three changes its members under load: the same steps on etcd and on standalone nodes, with the same answers.
func TestMembersComeAndGo(t *testing.T) {
	for _, runtime := range []framework.Runtime{
		{Name: "etcd", Oracle: true, Start: framework.EtcdCluster}, {Name: "standalone", Start: framework.StandaloneCluster},
	} {
		if *runtimeFlag != "" && *runtimeFlag != runtime.Name {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			t.Parallel()
			c := runtime.Start(t, framework.Options{})
			s := &system{Cluster: c, client: c.Client(t), oracle: runtime.Oracle}
			membersComeAndGo(t, s)
		})
	}
}

func membersComeAndGo(t *testing.T, s *system) {
	t.Helper()
	load := newTraffic(t, s.client, "load")
	badMemberRequests(t, s)

	// A learner: it is promoted only when it has caught up, and there is one at a time.
	learner := add(t, s.Cluster, s.client, "s4", true).Member.ID
	require.Regexp(t, fmt.Sprintf(`(?m)^%x, unstarted, , %s, , true$`, learner, s.PeerURL("s4")), ctl(t, s, "member", "list"))
	update := func(urls ...string) error {
		return answered(t, func(ctx context.Context) error { _, err := s.client.MemberUpdate(ctx, learner, urls); return err })
	}
	promote := func(ctx context.Context) error { _, err := s.client.MemberPromote(ctx, learner); return err }
	require.ErrorIs(t, answered(t, func(ctx context.Context) error {
		_, err := s.client.MemberAddAsLearner(ctx, []string{"http://127.0.0.1:1"})
		return err
	}), rpctypes.ErrTooManyLearners)
	require.ErrorIs(t, answered(t, promote), rpctypes.ErrMemberLearnerNotReady)
	_, err := s.client.MoveLeader(bounded(t), learner)
	require.ErrorContains(t, err, "etcdserver:") // not the leader, or a learner
	require.NoError(t, update(s.PeerURL("s4"), "http://127.0.0.1:2"))
	list := listMembers(t, s)
	require.True(t, list[learner].IsLearner, "an update neither promotes nor forgets a learner")
	require.Equal(t, []string{s.PeerURL("s4"), "http://127.0.0.1:2"}, list[learner].PeerURLs)
	require.NoError(t, update(s.PeerURL("s4")))
	s.Join(t, "s4", listed(listMembers(t, s)))
	require.Eventually(t, func() bool { return listMembers(t, s)[learner].Name == "s4" }, healthyWithin, 50*time.Millisecond)
	learnerServes(t, s, "s4")
	require.Eventually(t, func() bool {
		out, said, err := s.Etcdctl(t, "member", "promote", fmt.Sprintf("%x", learner))
		if err != nil {
			t.Logf("member promote: %v: %s", err, said)
		}
		return err == nil && strings.HasPrefix(out, fmt.Sprintf("Member %16x promoted in cluster ", learner)) ||
			s.oracle && err != nil && !listMembers(t, s)[learner].IsLearner // done, and the answer was lost, as in remove
	}, healthyWithin, 100*time.Millisecond)
	require.ErrorIs(t, answered(t, promote), rpctypes.ErrMemberNotLearner)
	load.flows()

	// The leader goes, and the others go on.
	leader := leaderName(t, s)
	gone := memberID(t, s.client, leader)
	remove(t, s.client, gone)
	if code := s.ExitCode(t, leader); !s.oracle {
		require.Equal(t, exitRemoved, code)
		require.Contains(t, s.Output(t), fmt.Sprintf("%s | holdfast: members: member %x was removed from the cluster: remove its data directory ", leader, gone))
		require.Equal(t, exitRemoved, s.ExitCodeOf(t, leader), "again with the same data")
	}
	require.ErrorIs(t, answered(t, func(ctx context.Context) error { _, err := s.client.MemberRemove(ctx, gone); return err }), rpctypes.ErrMemberNotFound)
	load.flows()

	// A voter comes, in the words of etcdctl.
	url := s.Reserve(t, "s5")
	var out string
	require.Eventually(t, func() bool {
		out, _, err = s.Etcdctl(t, "member", "add", "s5", "--peer-urls="+url)
		return err == nil
	}, healthyWithin, 100*time.Millisecond)
	require.Regexp(t, `^Member [ 0-9a-f]{16} added to cluster [ 0-9a-f]{16}\n\nETCD_NAME="s5"\nETCD_INITIAL_CLUSTER="[^"]*s5=`+url+`[^"]*"\n`+
		`ETCD_INITIAL_ADVERTISE_PEER_URLS="`+url+`"\nETCD_INITIAL_CLUSTER_STATE="existing"\n$`, out)
	s.Join(t, "s5", listed(listMembers(t, s)))
	require.Eventually(t, func() bool { return strings.Count(ctl(t, s, "member", "list"), ", started, s") == 4 }, healthyWithin, 100*time.Millisecond)
	load.flows()

	// It leads, and goes again.
	newest := memberID(t, s.client, "s5")
	require.Eventually(t, func() bool {
		_, err = s.ClientAt(t, s.ClientURL(leaderName(t, s))).MoveLeader(bounded(t), newest)
		return err == nil
	}, healthyWithin, 100*time.Millisecond)
	require.Eventually(t, func() bool { return leaderName(t, s) == "s5" }, healthyWithin, 50*time.Millisecond)
	var text string
	require.Eventually(t, func() bool {
		text, _, err = s.Etcdctl(t, "member", "remove", fmt.Sprintf("%x", newest))
		return err == nil || s.oracle && listMembers(t, s)[newest] == nil // as in remove
	}, healthyWithin, 100*time.Millisecond)
	require.True(t, err != nil || assert.Regexp(t, fmt.Sprintf(`^Member %16x removed from cluster [ 0-9a-f]{16}\n$`, newest), text))
	if code := s.ExitCode(t, "s5"); !s.oracle {
		require.Equal(t, exitRemoved, code)
	}
	load.finish()
}

// badMemberRequests are what every member refuses, over bare gRPC.
func badMemberRequests(t *testing.T, s *system) {
	t.Helper()
	conn := s.Conn(t, s.Endpoints()[1])
	cluster, maintenance := pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn)
	taken := s.PeerURL("s3")
	self := memberID(t, s.client, "s1")
	adding := func(urls ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: urls})
			return err
		}
	}
	for _, c := range []struct {
		name string
		want error
		call func(context.Context) error
	}{
		{"no URL", rpctypes.ErrGRPCMemberBadURLs, adding()},
		{"no scheme", rpctypes.ErrGRPCMemberBadURLs, adding("127.0.0.1:1")},
		{"other scheme", rpctypes.ErrGRPCMemberBadURLs, adding("ftp://127.0.0.1:1")},
		{"no port", rpctypes.ErrGRPCMemberBadURLs, adding("http://127.0.0.1")},
		{"a path", rpctypes.ErrGRPCMemberBadURLs, adding("http://127.0.0.1:1/x")},
		{"one of two is bad", rpctypes.ErrGRPCMemberBadURLs, adding("http://127.0.0.1:1", "x")},
		{"taken", rpctypes.ErrGRPCPeerURLExist, adding("http://127.0.0.1:1", taken)},
		{"unknown to remove", rpctypes.ErrGRPCMemberNotFound, func(ctx context.Context) error {
			_, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 404})
			return err
		}},
		{"unknown to promote", rpctypes.ErrGRPCMemberNotFound, func(ctx context.Context) error {
			_, err := cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 404})
			return err
		}},
		{"a voter to promote", rpctypes.ErrGRPCMemberNotLearner, func(ctx context.Context) error {
			_, err := cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: self})
			return err
		}},
		{"unknown to update", rpctypes.ErrGRPCMemberNotFound, func(ctx context.Context) error {
			_, err := cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 404, PeerURLs: []string{"http://127.0.0.1:1"}})
			return err
		}},
		{"another's URL", rpctypes.ErrGRPCPeerURLExist, func(ctx context.Context) error {
			_, err := cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: self, PeerURLs: []string{taken}})
			return err
		}},
	} {
		require.EqualError(t, answered(t, c.call), c.want.Error(), c.name)
	}
	leader := s.ClientAt(t, s.ClientURL(leaderName(t, s)))
	_, err := leader.MoveLeader(bounded(t), 404)
	require.ErrorIs(t, err, rpctypes.ErrBadLeaderTransferee)
	_, err = maintenance.MoveLeader(bounded(t), &pb.MoveLeaderRequest{TargetID: 404})
	require.Error(t, err)
	for _, linearizable := range []bool{true, false} {
		r, err := cluster.MemberList(bounded(t), &pb.MemberListRequest{Linearizable: linearizable})
		require.NoError(t, err)
		require.Len(t, r.Members, 3)
		require.Zero(t, r.Header.Revision)
	}
}

// learnerServes asks the one member that is a learner: of etcd's it serves little, and ours has its proxy ask the others.
func learnerServes(t *testing.T, s *system, name string) {
	t.Helper()
	client := s.ClientAt(t, s.ClientURL(name))
	_, err := client.Get(bounded(t), "k")
	if s.oracle {
		require.ErrorContains(t, err, "rpc not supported for learner")
	} else {
		require.NoError(t, err)
	}
}

func listMembers(t *testing.T, s *system) map[uint64]*pb.Member {
	t.Helper()
	list, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	byID := map[uint64]*pb.Member{}
	for _, m := range list.Members {
		byID[m.ID] = m
	}
	return byID
}

func listed(members map[uint64]*pb.Member) []*pb.Member {
	var out []*pb.Member
	for _, m := range members {
		out = append(out, m)
	}
	return out
}

// leaderName is the name of the member that leads.
func leaderName(t *testing.T, s *system) string {
	t.Helper()
	var name string
	require.Eventually(t, func() bool {
		for _, running := range s.Running() {
			st, err := s.client.Status(bounded(t), s.ClientURL(running))
			if err != nil || st.Leader == 0 {
				continue
			}
			if m := listMembers(t, s)[st.Leader]; m != nil {
				name = m.Name
				return true
			}
		}
		return false
	}, healthyWithin, 50*time.Millisecond)
	return name
}

// The split system grows from three nodes to five and loses the first three one by one, while clients write, watch and keep a lease alive
// through the same two proxies, which were told of none but the first three.
func TestAllNodesOfTheSplitSystemAreReplaced(t *testing.T) {
	if *runtimeFlag != "" && *runtimeFlag != "split" {
		t.Skip("another runtime was asked for")
	}
	t.Parallel()
	c := framework.Split(t, framework.Options{})
	client := c.Client(t)
	load := newTraffic(t, client, "load")
	for _, name := range []string{"n4", "n5"} {
		added := add(t, c, client, name, false)
		c.Join(t, name, added.Members, "--strict-reconfig-check=true")
		require.Eventually(t, func() bool {
			list, err := client.MemberList(bounded(t))
			return err == nil && slices.ContainsFunc(list.Members, func(m *pb.Member) bool { return m.Name == name })
		}, healthyWithin, 50*time.Millisecond)
		load.flows()
	}
	// Through the admin address of a member that may not lead: it has the leader answer.
	for _, name := range []string{"n1", "n2", "n3"} {
		remove(t, c.ClientAt(t, c.AdminURL("n4")), memberID(t, client, name))
		require.Equal(t, exitRemoved, c.ExitCode(t, name))
		load.flows()
	}
	revision := load.finish()

	// What is new works as well: a watch, a lease and a proxy that is started again when it can be told of new members.
	hashes := map[uint32]bool{}
	for _, name := range []string{"n4", "n5"} {
		admin := c.ClientAt(t, c.AdminURL(name))
		require.Eventually(t, func() bool {
			st, err := admin.Status(bounded(t), c.AdminURL(name))
			return err == nil && st.Header.Revision >= revision
		}, healthyWithin, 20*time.Millisecond)
		r, err := admin.HashKV(bounded(t), c.AdminURL(name), revision)
		require.NoError(t, err)
		require.Equal(t, revision, r.HashRevision)
		hashes[r.Hash] = true
	}
	require.Len(t, hashes, 1)
	again := newTraffic(t, client, "again")
	again.finish()
}

// With two of three lost, the third is forced into a cluster of its own, keeps what it has, and grows again; the others are told that they
// were removed.
func TestForceNewCluster(t *testing.T) {
	for _, runtime := range []framework.Runtime{
		{Name: "etcd", Oracle: true, Start: framework.EtcdCluster}, {Name: "standalone", Start: framework.StandaloneCluster},
	} {
		if *runtimeFlag != "" && *runtimeFlag != runtime.Name {
			continue
		}
		t.Run(runtime.Name, func(t *testing.T) {
			t.Parallel()
			c := runtime.Start(t, framework.Options{})
			forceNewCluster(t, &system{Cluster: c, client: c.Client(t), oracle: runtime.Oracle})
		})
	}
}

func forceNewCluster(t *testing.T, s *system) {
	t.Helper()
	const ttlS = 600
	lease, err := s.client.Grant(bounded(t), ttlS)
	require.NoError(t, err)
	put(t, s, "leased", "v", clientv3.WithLease(lease.ID))
	last := put(t, s, "k", "v")
	id, first := memberID(t, s.client, "s1"), listMembers(t, s)
	before, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	// The one that stays has it.
	alone := &system{Cluster: s.Cluster, client: s.ClientAt(t, s.ClientURL("s1")), oracle: s.oracle}
	require.Len(t, get(t, alone, "k").Kvs, 1)
	s.Kill(t, "s2", syscall.SIGKILL)
	s.Kill(t, "s3", syscall.SIGKILL)
	s.Kill(t, "s1", syscall.SIGTERM) // with time to note what is committed: all else is dropped
	s.Wait(t, "s1")
	s.Restart(t, "s1", "--force-new-cluster=true")
	got := get(t, alone, "k")
	require.Equal(t, last, got.Kvs[0].ModRevision)
	after, err := alone.client.MemberList(bounded(t))
	require.NoError(t, err)
	require.Equal(t, before.Header.ClusterId, after.Header.ClusterId)
	require.Len(t, after.Members, 1)
	require.Equal(t, id, after.Members[0].ID)
	require.Equal(t, first[id].PeerURLs, after.Members[0].PeerURLs)
	rest, err := alone.client.TimeToLive(bounded(t), lease.ID)
	require.NoError(t, err)
	require.EqualValues(t, ttlS, rest.GrantedTTL)
	require.Equal(t, last+1, put(t, alone, "k", "w"))

	added := add(t, s.Cluster, alone.client, "s4", false)
	s.Join(t, "s4", added.Members)
	require.Greater(t, put(t, alone, "k", "x"), last)
	if !s.oracle {
		require.Equal(t, exitRemoved, s.ExitCodeOf(t, "s2"), "it never saw that it was removed, and is told")
	}
}
