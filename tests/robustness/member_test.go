package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"

	"github.com/holdfastdb/holdfast/tests/framework"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	// changeTimeout bounds how long a change of the member list may be refused or stay without an answer though nothing fails any
	// more: members must have been connected for 5 s, after whatever the last fault did.
	changeTimeout = 45 * time.Second
	// askTimeout is how long one request for a change is waited for.
	askTimeout  = 6 * time.Second
	changePause = 100 * time.Millisecond
)

// memberChange is a change of the member list, which may be asked for again until it is done.
type memberChange struct {
	name string
	ask  func(context.Context, pb.ClusterClient) error
	// done tells whether the list shows it.
	done func([]*pb.Member) bool
}

func adding(url string, learner bool) memberChange {
	name := "add " + url
	if learner {
		name += " as a learner"
	}
	return memberChange{name, func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}, IsLearner: learner})
		return err
	}, func(list []*pb.Member) bool { return memberAt(list, url) != nil }}
}

func removing(id uint64) memberChange {
	return memberChange{fmt.Sprintf("remove %x", id), func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
		return err
	}, func(list []*pb.Member) bool { return memberOf(list, id) == nil }}
}

func promoting(id uint64) memberChange {
	return memberChange{fmt.Sprintf("promote %x", id), func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: id})
		return err
	}, func(list []*pb.Member) bool { return !memberOf(list, id).GetIsLearner() }}
}

func updating(id uint64, urls ...string) memberChange {
	return memberChange{fmt.Sprintf("update %x to %v", id, urls), func(ctx context.Context, c pb.ClusterClient) error {
		_, err := c.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: id, PeerURLs: urls})
		return err
	}, func(list []*pb.Member) bool { return slices.Equal(memberOf(list, id).GetPeerURLs(), urls) }}
}

func memberOf(list []*pb.Member, id uint64) *pb.Member {
	return find(list, func(m *pb.Member) bool { return m.ID == id })
}

func memberAt(list []*pb.Member, url string) *pb.Member {
	return find(list, func(m *pb.Member) bool { return slices.Contains(m.PeerURLs, url) })
}

func find(list []*pb.Member, is func(*pb.Member) bool) *pb.Member {
	if at := slices.IndexFunc(list, is); at >= 0 {
		return list[at]
	}
	return nil
}

// ask asks for a change once, through any client URL.
func (r *run) ask(t *testing.T, rng *rand.Rand, c memberChange) error {
	t.Helper()
	conn := framework.Dial(t, framework.HostPort(t, pick(rng, r.Endpoints())))
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), askTimeout)
	defer cancel()
	err := c.ask(ctx, pb.NewClusterClient(conn))
	if code := workload.Code(err); !r.oracle() && (code == codes.Unknown || code == codes.Internal) {
		t.Errorf("VIOLATION an answer that tells a client nothing: %s: %v", c.name, err)
	}
	return err
}

// listed is the member list as a majority has it.
func (r *run) listed(t *testing.T) []*pb.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), changeTimeout)
	defer cancel()
	for {
		bounded, cancel := context.WithTimeout(ctx, workload.OpTimeout)
		list, err := r.client.MemberList(bounded)
		cancel()
		if err == nil {
			return list.Members
		}
		require.NoError(t, ctx.Err(), "the member list is not told: %v", err)
		r.last(t, changePause)
	}
}

// change asks for a change until it is done, and gives the list. What was acknowledged must be there at once.
func (r *run) change(t *testing.T, rng *rand.Rand, c memberChange) []*pb.Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), changeTimeout)
	defer cancel()
	for at, last := r.Now(), ""; ; r.last(t, changePause) {
		err := r.ask(t, rng, c)
		list := r.listed(t)
		if c.done(list) {
			t.Logf("  %s: done after %v%s", c.name, (r.Now() - at).Round(time.Millisecond), last)
			return list
		}
		require.Error(t, err, "VIOLATION %s was acknowledged, and the list is %v", c.name, list)
		require.NoError(t, ctx.Err(), "%s: %v", c.name, err)
		last = fmt.Sprintf(", and %v before", err)
	}
}

// agreed waits until each member has the list that a majority has, and sees that it is that of the nodes that are there.
func (r *run) agreed(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	nodes := r.present()
	for {
		list := r.listed(t)
		require.Len(t, list, len(nodes), "members: %v", list)
		for _, n := range nodes {
			m := memberOf(list, n.id)
			require.NotNil(t, m, "%s, member %x, is not in %v", n.name, n.id, list)
			require.False(t, m.IsLearner, "%s: %v", n.name, list)
		}
		// Names come a moment later than members, so all are asked again where one differs.
		other, has := r.disagrees(ctx, nodes, lines(list))
		if other == "" {
			return
		}
		require.NoError(t, ctx.Err(), "VIOLATION %s has another member list than it should:\n%s\nand not\n%s", other, has, lines(list))
		r.last(t, pollPause)
	}
}

// disagrees names a node that has another list, or does not tell its own, and gives what it said.
func (r *run) disagrees(ctx context.Context, nodes []*node, want string) (name, has string) {
	for _, n := range nodes {
		bounded, cancel := context.WithTimeout(ctx, time.Second)
		own, err := n.list(bounded)
		cancel()
		if err != nil {
			return n.name, err.Error()
		}
		if text := lines(own); text != want {
			return n.name, text
		}
	}
	return "", ""
}

// lines are the members in words.
func lines(list []*pb.Member) string {
	var out []string
	for _, m := range list {
		out = append(out, fmt.Sprintf("%x %s %v %v %t", m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// refused tells whether an error says that a change was not even tried.
func refused(err error) bool {
	code := workload.Code(err)
	return code == codes.FailedPrecondition || code == codes.InvalidArgument || code == codes.NotFound ||
		err != nil && strings.Contains(err.Error(), rpctypes.ErrUnhealthy.Error())
}
