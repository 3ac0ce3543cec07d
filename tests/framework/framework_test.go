package framework_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) { os.Exit(framework.Main(m, "etcd", "etcdctl")) }

// A process that is killed comes back with its data, and the cluster ends with the test.
func TestKillAndStartAgain(t *testing.T) {
	c := framework.Etcd(t, framework.Options{})
	client := c.Client(t)
	_, err := client.Put(t.Context(), "a", "1")
	require.NoError(t, err)
	require.Equal(t, []string{"s1"}, c.Processes())

	c.Kill(t, "s1", syscall.SIGKILL)
	c.Start(t, "s1")
	got, err := client.Get(t.Context(), "a")
	require.NoError(t, err)
	require.Len(t, got.Kvs, 1)

	stdout, stderr, err := c.Etcdctl(t, "get", "a")
	require.NoError(t, err, stderr)
	require.Equal(t, "a\n1\n", stdout)
	code, body := framework.Get(t, c.Endpoints()[0]+"/health")
	require.Equal(t, 200, code)
	require.Contains(t, body, `"true"`)
}
