package robustness

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/history"
	"github.com/holdfastdb/holdfast/tests/workload"
)

const (
	// fullTimeout bounds how long a member whose disk is full may go on with the room that it had taken before.
	fullTimeout = 2 * time.Minute
	// exitStorage is how a process ends that cannot store.
	exitStorage = 2
)

// fullDisk fills the disk of one member. It must end, with the exit code of a storage failure and a line that says why:
// what a write failed on may be half there. The others go on. With room again it starts and catches up.
func fullDisk(t *testing.T, r *run, rng *rand.Rand) {
	name := r.disk.of
	r.disk.fill(t)
	c := r.dial(t, "filler"+r.Now().String(), r.Endpoints()...)
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), fullTimeout)
	defer cancel()
	said := len(r.Output(t))
	for r.runs(name) {
		require.NoError(t, ctx.Err(), "%s goes on with a full disk", name)
		r.putLarge(ctx, c)
		r.last(t, pollPause)
	}
	text := r.Output(t)[said:]
	line := lineWith(text, name, "no space left on device")
	t.Logf("  %s ended with exit code %d: %s", name, r.ExitCode(t, name), line)
	if !r.oracle() {
		require.Equal(t, exitStorage, r.ExitCode(t, name), "exit code of %s", name)
		require.NotEmpty(t, line, "%s must say what was wrong", name)
		require.NotContains(t, text, "goroutine ", "no stack trace")
	}
	r.progress(t, "without "+name, name)
	r.last(t, duration(rng, downShortest, downLongest))
	r.disk.free(t)
	r.Start(t, name)
	r.caughtUpNode(t, r.node(t, name), r.Newest())
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
