package robustness

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	// fullTimeout bounds how long a member whose disk is full may go on with the room that it had taken before.
	fullTimeout = 2 * time.Minute
	// exitStorage is how a process ends that cannot store.
	exitStorage = 2
)

// fullDisk fills the disk of one member. If it notices in time, the NOSPACE alarm bars writes for all until there is room and
// somebody disarms it, while reads and deletes go on. With no room at all it ends sooner or later, with the exit code of a storage
// failure and a line that says why (what a write failed on may be half there); the others go on, and with room again it starts and
// catches up.
func fullDisk(t *testing.T, r *run, rng *rand.Rand) {
	n := r.node(t, r.disk.of)
	r.disk.fill(t)
	c := r.dial(t, "filler"+r.Now().String(), r.Endpoints()...)
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), fullTimeout)
	defer cancel()
	said := len(r.Output(t))
	for r.runs(n.name) && !noSpace(ctx, c) {
		require.NoError(t, ctx.Err(), "%s goes on with a full disk", n.name)
		r.putLarge(ctx, c)
		r.last(t, pollPause)
	}
	if r.runs(n.name) {
		r.barred(ctx, t, c)
	} else if !noSpace(ctx, c) {
		r.progress(t, "without "+n.name, n.name)
	}
	r.last(t, duration(rng, downShortest, downLongest))
	r.disk.free(t)
	r.last(t, time.Second) // in which what failed before shows
	for r.runs(n.name) && r.failing(t, n.name, said) {
		require.NoError(t, ctx.Err(), "%s has failed and does not end", n.name)
		r.last(t, pollPause)
	}
	if !r.runs(n.name) {
		r.endedFull(t, n.name, said)
		r.Start(t, n.name)
	}
	r.disarm(ctx, t, c)
	r.caughtUpNode(t, n, r.Newest())
}

// failing tells whether a member has said that it cannot go on: it ends once it has handed over what it can.
func (r *run) failing(t *testing.T, name string, said int) bool {
	t.Helper()
	text := r.Output(t)[said:]
	return lineWith(text, name, "database commit failed") != "" || lineWith(text, name, "cannot go on") != ""
}

// noSpace tells whether the alarm is raised.
func noSpace(ctx context.Context, c workload.Client) bool {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := c.AlarmList(bounded)
	return err == nil && slices.ContainsFunc(list.Alarms, func(m *pb.AlarmMember) bool { return m.GetAlarm() == pb.AlarmType_NOSPACE })
}

// callTimeout bounds one call, which may meet an election.
const callTimeout = 10 * time.Second

// barred checks what goes on under the alarm, and what does not.
func (r *run) barred(ctx context.Context, t *testing.T, c workload.Client) {
	t.Helper()
	t.Logf("  the alarm is raised")
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Put(bounded, "barred", "x")
	require.ErrorIs(t, err, rpctypes.ErrNoSpace)
	_, err = c.Get(bounded, "large")
	require.NoError(t, err, "reads go on")
	gone := r.Do(bounded, c, history.Request{Then: []history.Action{{Kind: history.Delete, Key: "large"}}})
	require.Equal(t, history.Done, gone.Outcome, "deletes go on: %s", gone.Err)
}

// endedFull checks how a member ended that could not store.
func (r *run) endedFull(t *testing.T, name string, said int) {
	t.Helper()
	text := r.Output(t)[said:]
	line := lineWith(text, name, "no space left on device")
	t.Logf("  %s ended with exit code %d: %s", name, r.ExitCode(t, name), line)
	if !r.oracle() {
		require.Equal(t, exitStorage, r.ExitCode(t, name), "exit code of %s", name)
		require.NotEmpty(t, line, "%s must say what was wrong", name)
		require.NotContains(t, text, "goroutine ", "no stack trace")
	}
}

// disarm clears the alarm, again and again until the member has seen that it has room.
func (r *run) disarm(ctx context.Context, t *testing.T, c workload.Client) {
	t.Helper()
	for noSpace(ctx, c) {
		require.NoError(t, ctx.Err(), "the alarm comes back")
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		_, err := c.AlarmDisarm(bounded, &clientv3.AlarmMember{})
		cancel()
		t.Logf("  disarmed: %v", err)
		r.last(t, time.Second)
	}
}

func (r *run) runs(name string) bool {
	return slices.Contains(r.Running(), name)
}

// putLarge makes the member need more room soon.
func (r *run) putLarge(ctx context.Context, c workload.Client) {
	const valueBytes = 256 << 10
	r.Do(ctx, c, history.Request{Then: []history.Action{{
		Kind: history.Put, Key: "large", Value: c.Name + r.Now().String() + strings.Repeat("x", valueBytes),
	}}})
}

// lineWith is the last line of a process that holds the words.
func lineWith(text, name, words string) (found string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, name+" ") && strings.Contains(line, words) {
			found = strings.TrimSpace(line)
		}
	}
	return found
}

// caughtUpNode waits until a node has applied all up to the revision.
func (r *run) caughtUpNode(t *testing.T, n *node, revision int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), recoverTimeout)
	defer cancel()
	for {
		applied, err := n.applied(ctx)
		if err == nil && applied >= revision {
			return
		}
		require.NoError(t, ctx.Err(), "%s does not catch up to %d: %v", n.name, revision, err)
		r.last(t, pollPause)
	}
}
