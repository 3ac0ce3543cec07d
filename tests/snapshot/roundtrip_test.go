package snapshot

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// ours are the ways to run Holdfast.
func ours() []framework.Runtime {
	return framework.Runtimes()[1:]
}

func etcd() framework.Runtime { return framework.Runtimes()[0] }

// From etcd into each kind of Holdfast and back into etcd, nothing is lost or changed.
func TestFromEtcdAndBack(t *testing.T) {
	source := framework.Etcd(t, framework.Options{})
	write(t, source, true)
	alarmed(t, source)
	want := stateOf(t, source, source.Endpoints()[0]).withLeases(t, source, false)
	require.Len(t, want.Leases, 4)
	require.Len(t, want.Alarms, 1)
	require.Positive(t, want.Compact)
	file := save(t, source.Endpoints()[0])
	source.Stop(t)
	for _, runtime := range ours() {
		t.Run(runtime.Name, func(t *testing.T) {
			c := restored(t, runtime, file)
			same(t, want, c, true)
			again := save(t, c.Endpoints()[len(c.Endpoints())-1])
			status := must(t, "etcdutl", "snapshot", "status", again)
			require.Equal(t, status, must(t, "holdfast", "snapshot", "status", again))
			require.Contains(t, status, fmt.Sprintf(", %d, ", want.Revision))
			writable(t, c, want)
			c.Stop(t)

			back := restored(t, etcd(), again)
			same(t, want, back, true)
			require.Equal(t, "alice\n", must(t, "etcdctl", "--endpoints", back.Endpoints()[0], "user", "list"))
			require.Equal(t, "reader\n", must(t, "etcdctl", "--endpoints", back.Endpoints()[0], "role", "list"))
			writable(t, back, want)
		})
	}
}

// A snapshot of Holdfast restores into Holdfast, one member or three, from any member's own port too.
func TestFromHoldfast(t *testing.T) {
	source := framework.Split(t, framework.Options{})
	write(t, source, false)
	alarmed(t, source)
	want := stateOf(t, source, source.Endpoints()[0]).withLeases(t, source, false)
	through := save(t, source.Endpoints()[0])
	require.NotContains(t, ofProcess(source.Output(t), leader(t, source)), "sending database snapshot", "the leader was not spared")
	files := []string{through}
	for _, member := range members(source) {
		files = append(files, save(t, member))
	}
	old, err := client(t, source, source.Endpoints()[0]).MemberList(bounded(t))
	require.NoError(t, err)
	source.Stop(t)
	for i, runtime := range append([]framework.Runtime{etcd()}, ours()...) {
		t.Run(runtime.Name, func(t *testing.T) {
			c := restored(t, runtime, files[i])
			same(t, want, c, true)
			now, err := client(t, c, c.Endpoints()[0]).MemberList(bounded(t))
			require.NoError(t, err)
			require.NotEqual(t, old.Header.ClusterId, now.Header.ClusterId)
			require.Len(t, now.Members, map[bool]int{true: 3, false: 1}[len(members(c)) == 3])
			writable(t, c, want)
		})
	}
}

// leader is the name of the node that leads.
func leader(t *testing.T, c *framework.Cluster) string {
	t.Helper()
	for i, endpoint := range members(c) {
		status, err := client(t, c, endpoint).Status(bounded(t), endpoint)
		require.NoError(t, err)
		if status.Leader == status.Header.MemberId {
			return fmt.Sprintf("n%d", i+1)
		}
	}
	t.Fatal("nobody leads")
	return ""
}

// ofProcess is what one process said.
func ofProcess(output, name string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		if strings.HasPrefix(line, name+" ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// A raised revision is etcd's, to the hash; clients with older revisions hear that theirs are compacted.
func TestRaisedRevision(t *testing.T) {
	source := framework.Etcd(t, framework.Options{})
	write(t, source, true)
	file, bump := save(t, source.Endpoints()[0]), []string{"--bump-revision", "1000000", "--mark-compacted"}
	before := stateOf(t, source, source.Endpoints()[0])
	source.Stop(t)
	oracle := restored(t, etcd(), file, bump...)
	want := stateOf(t, oracle, oracle.Endpoints()[0])
	require.Equal(t, want.Revision, before.Revision+1_000_000)
	require.Equal(t, want.Revision, want.Compact)
	again := save(t, oracle.Endpoints()[0])
	oracle.Stop(t)
	for _, runtime := range ours() {
		t.Run(runtime.Name, func(t *testing.T) {
			c := restored(t, runtime, file, bump...)
			raised(t, c, want, before.Revision)
			c.Stop(t)
			// What was raised can be raised again, and comes back out of etcd.
			twice := restored(t, runtime, again, bump...)
			require.Equal(t, want.Revision+1_000_000, stateOf(t, twice, twice.Endpoints()[0]).Revision)
		})
	}
}

func raised(t *testing.T, c *framework.Cluster, want state, old int64) {
	t.Helper()
	for _, endpoint := range members(c) {
		require.Equal(t, want, stateOf(t, c, endpoint), endpoint)
	}
	client := client(t, c, c.Endpoints()[0])
	for response := range client.Watch(bounded(t), "key/", clientv3.WithPrefix(), clientv3.WithRev(old)) {
		require.Equal(t, want.Compact, response.CompactRevision)
		require.ErrorIs(t, response.Err(), rpctypes.ErrCompacted)
		break
	}
	_, err := client.Get(bounded(t), "key/00", clientv3.WithRev(old))
	require.ErrorIs(t, err, rpctypes.ErrCompacted)
	watch := client.Watch(bounded(t), "key/00", clientv3.WithRev(want.Revision+1))
	r, err := client.Put(bounded(t), "key/00", "third")
	require.NoError(t, err)
	require.Equal(t, want.Revision+1, r.Header.Revision)
	seen := <-watch
	require.NoError(t, seen.Err())
	require.Equal(t, r.Header.Revision, seen.Events[0].Kv.ModRevision)
}

// The database of a stopped etcd can be restored too, if its missing hash is accepted; a restored member starts again and again,
// whatever --initial-cluster-state says.
func TestCopiedDatabase(t *testing.T) {
	source := framework.Etcd(t, framework.Options{})
	write(t, source, false)
	want := stateOf(t, source, source.Endpoints()[0])
	source.Stop(t)
	database := filepath.Join(source.Data, "s1", "member", "snap", "db")
	r := run(t, t.TempDir(), "holdfast", "snapshot", "restore", database, "--data-dir", "d")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stderr, "--skip-hash-check")
	c := framework.Standalone(t, framework.Options{
		Before: from("holdfast", database, "--skip-hash-check"), Args: []string{"--initial-cluster-state", "existing"},
	})
	require.Equal(t, want, stateOf(t, c, c.Endpoints()[0]))
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		c.Kill(t, "s1", signal)
		c.Wait(t, "s1")
		c.Start(t, "s1")
		require.Eventually(t, func() bool { return stateOf(t, c, c.Endpoints()[0]).Revision == want.Revision }, timeout, 100*time.Millisecond)
	}
	require.Equal(t, want, stateOf(t, c, c.Endpoints()[0]))
}
