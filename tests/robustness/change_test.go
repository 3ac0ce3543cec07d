package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/tests/relay"
)

// exitRemoved is how a process ends whose member was removed.
const exitRemoved = 3

// addLearner adds a learner, which is promoted when it has caught up and stays as a fourth member.
func addLearner(t *testing.T, r *run, rng *rand.Rand) {
	r.three(t, rng)
	r.join(t, rng, r.newName(t), true)
}

// addVoter adds a member that counts before it has started.
func addVoter(t *testing.T, r *run, rng *rand.Rand) {
	r.three(t, rng)
	r.join(t, rng, r.newName(t), false)
}

// removeNode removes a member that does not lead.
func removeNode(t *testing.T, r *run, rng *rand.Rand) {
	r.remove(t, rng, pick(rng, r.present(r.leader(t).name)))
}

func removeLeader(t *testing.T, r *run, rng *rand.Rand) { r.remove(t, rng, r.leader(t)) }

// replaceDead removes a member that is down. Started again it must hear that it was removed; then it comes as a new one.
func replaceDead(t *testing.T, r *run, rng *rand.Rand) {
	n := pick(rng, r.present())
	r.Kill(t, n.name, syscall.SIGKILL)
	r.progress(t, "without "+n.name, n.name)
	r.change(t, rng, removing(n.id))
	r.gone(t, n)
	if !r.oracle() {
		require.Equal(t, exitRemoved, r.ExitCodeOf(t, n.name), "exit code of %s, which was removed while it was down", n.name)
	}
	r.again(t, rng, n.name)
}

// updateMember has the others reach a member elsewhere.
func updateMember(t *testing.T, r *run, rng *rand.Rand) {
	n := pick(rng, r.present())
	r.change(t, rng, updating(n.id, r.otherURL(t, n.name)))
	r.progress(t, "with "+n.name+" elsewhere")
	r.agreed(t)
}

// changeWhileDown asks for a change while one member is down. It may be refused or done.
func changeWhileDown(t *testing.T, r *run, rng *rand.Rand) {
	n := r.one(t, rng)
	r.undecided(t, rng, n, func() { r.Kill(t, n.name, syscall.SIGKILL) }, func() { r.Start(t, n.name) })
}

// changeWhileCut asks for one while one member is cut off from the others.
func changeWhileCut(t *testing.T, r *run, rng *rand.Rand) {
	n, mode := r.one(t, rng), pick(rng, []relay.Mode{relay.Held, relay.Refused})
	r.undecided(t, rng, n, func() {
		t.Logf("  mode %d: %s is cut off from the other members", mode, n.name)
		r.network.Set(mode, between([]string{n.name}, r.names())...)
		r.last(t, duration(rng, 0, 2*time.Second))
	}, r.network.Mend)
}

// one is the leader half of the time.
func (r *run) one(t *testing.T, rng *rand.Rand) *node {
	t.Helper()
	if rng.IntN(2) == 0 {
		return r.leader(t)
	}
	return pick(rng, r.present())
}

// undecided asks once for a change while something else is wrong. When that is over, the change is either there or not, as the
// answer said; one whose outcome nobody told is asked for until it is there. Then it is taken back.
func (r *run) undecided(t *testing.T, rng *rand.Rand, hurt *node, begin, end func()) {
	t.Helper()
	c, after := r.anyChange(t, rng, hurt)
	begin()
	err := r.ask(t, rng, c)
	t.Logf("  %s, asked while %s is away: %v", c.name, hurt.name, err)
	end()
	list := r.listed(t)
	switch {
	case err == nil:
		require.True(t, c.done(list), "VIOLATION %s was acknowledged, and the list is %v", c.name, list)
	case refused(err):
		require.False(t, c.done(list), "VIOLATION %s was refused (%v), and the list is %v", c.name, err, list)
		r.agreed(t)
		return
	default:
		list = r.change(t, rng, c)
	}
	after(list)
	r.agreed(t)
}

// anyChange is a change that does not concern a member, and what puts the list right after it.
func (r *run) anyChange(t *testing.T, rng *rand.Rand, less *node) (c memberChange, after func([]*pb.Member)) {
	t.Helper()
	other := pick(rng, r.present(less.name))
	switch rng.IntN(4) {
	case 0:
		return removing(other.id), func([]*pb.Member) { r.removedNow(t, rng, other) }
	case 1:
		return updating(other.id, r.otherURL(t, other.name)), func([]*pb.Member) {}
	default:
		url := r.Reserve(t, r.freshName())
		return adding(url, rng.IntN(2) == 0), func(list []*pb.Member) {
			r.progress(t, "with a member that never starts")
			r.change(t, rng, removing(memberAt(list, url).GetID()))
		}
	}
}

// otherURL is a further address at which the others reach a node.
func (r *run) otherURL(t *testing.T, name string) string {
	t.Helper()
	port, err := r.network.Listen(t.Context(), name, localAddress(r.Ports[name].Peer))
	require.NoError(t, err)
	return "http://" + localAddress(port)
}

// freshName is one that no process had before.
func (r *run) freshName() string {
	r.later++
	return fmt.Sprintf("%c%d", r.first[0][0], len(r.first)+r.later)
}

func (r *run) newName(t *testing.T) string {
	t.Helper()
	name := r.freshName()
	r.Reserve(t, name)
	return name
}

// three removes the fourth member, if there is one: five would be slow, and two of them could be away.
func (r *run) three(t *testing.T, rng *rand.Rand) {
	t.Helper()
	for _, n := range r.present(r.first...) {
		r.remove(t, rng, n)
	}
}

// remove removes a member whose process runs; one of the first comes back as a new member.
func (r *run) remove(t *testing.T, rng *rand.Rand, n *node) {
	t.Helper()
	r.change(t, rng, removing(n.id))
	r.removedNow(t, rng, n)
}

// removedNow sees the process of a member end that was removed.
func (r *run) removedNow(t *testing.T, rng *rand.Rand, n *node) {
	t.Helper()
	r.gone(t, n)
	said := fmt.Sprintf("member %x was removed from the cluster", n.id)
	if code := r.ExitCode(t, n.name); !r.oracle() {
		require.Equal(t, exitRemoved, code, "exit code of %s, which was removed", n.name)
		require.True(t, slices.ContainsFunc(slices.Collect(strings.Lines(r.Output(t))), func(line string) bool {
			return strings.HasPrefix(line, n.name+" ") && strings.Contains(line, said)
		}), "%s must say why it ends", n.name)
	}
	r.progress(t, "without "+n.name, n.name)
	r.again(t, rng, n.name)
}

// gone takes a member off the nodes.
func (r *run) gone(t *testing.T, n *node) {
	t.Helper()
	t.Logf("  %s, member %x, is none any more", n.name, n.id)
	r.leave(n)
	r.removed[n.name] = true
	_ = n.conn.Close()
}

// again brings back a node of the first, as a new member with nothing in its data directory.
func (r *run) again(t *testing.T, rng *rand.Rand, name string) {
	t.Helper()
	if slices.Contains(r.first, name) {
		r.join(t, rng, name, rng.IntN(2) == 0)
		return
	}
	r.agreed(t)
}

// join adds a member and starts it. Half of the time it is killed while it catches up, and starts again.
func (r *run) join(t *testing.T, rng *rand.Rand, name string, learner bool) {
	t.Helper()
	url := r.PeerURL(name)
	list := r.change(t, rng, adding(url, learner))
	n := &node{name: name, id: memberAt(list, url).GetID(), conn: r.dialNode(t, name)}
	r.progress(t, "before the member "+name+" starts", name)
	r.LaunchJoin(t, name, list)
	delete(r.removed, name)
	if rng.IntN(2) == 0 {
		const longest = 1500 * time.Millisecond
		d := duration(rng, 0, longest)
		r.last(t, d)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		applied, err := n.applied(ctx)
		cancel()
		t.Logf("  kill -9 of %s %v after its start, at revision %d of %d (%v)", name, d.Round(time.Millisecond), applied, r.Newest(), err)
		r.Kill(t, name, syscall.SIGKILL)
		r.progress(t, "with the member "+name+" killed while it caught up", name)
		r.Launch(t, name)
	}
	r.AwaitReady(t, name)
	r.caughtUpNode(t, n, r.Newest())
	if learner {
		r.change(t, rng, promoting(n.id))
	}
	r.enter(n)
	r.progress(t, "with "+name)
	r.agreed(t)
}
