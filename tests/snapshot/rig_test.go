package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd", "etcdctl", "etcdutl")...))
}

const timeout = 20 * time.Second

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

// run runs a program to its end in a folder.
func run(t *testing.T, dir, program string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(bounded(t), framework.Program(t, program), args...)
	var stdout, stderr strings.Builder
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return result{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
}

// must runs a program that succeeds.
func must(t *testing.T, program string, args ...string) string {
	t.Helper()
	r := run(t, t.TempDir(), program, args...)
	require.Zero(t, r.code, "%s %s: %s", program, strings.Join(args, " "), r.stderr)
	return r.stdout
}

// save saves a snapshot through one endpoint.
func save(t *testing.T, endpoint string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "saved.db")
	must(t, "etcdctl", "--endpoints", endpoint, "snapshot", "save", file)
	return file
}

// flag is the value of a flag among a process's flags.
func flag(flags []string, name string) string {
	if i := slices.Index(flags, name); i >= 0 && i+1 < len(flags) {
		return flags[i+1]
	}
	return ""
}

// from restores a file into the data directory of each process that has one, before it starts.
func from(program, file string, more ...string) func(testing.TB, string, []string) {
	return func(tb testing.TB, name string, flags []string) {
		tb.Helper()
		t, ok := tb.(*testing.T)
		dir := flag(flags, "--data-dir")
		if !ok || flag(flags, "--initial-cluster") == "" {
			return
		}
		args := []string{"snapshot", "restore", file, "--data-dir", dir, "--name", flag(flags, "--name")}
		for _, passed := range []string{"--initial-cluster", "--initial-cluster-token", "--initial-advertise-peer-urls"} {
			args = append(args, passed, flag(flags, passed))
		}
		r := run(t, tb.TempDir(), program, append(args, more...)...)
		require.Zero(tb, r.code, "%s: %s", name, r.stderr)
	}
}

// restored starts a runtime from a file.
func restored(t *testing.T, runtime framework.Runtime, file string, more ...string) *framework.Cluster {
	t.Helper()
	program := "holdfast"
	switch {
	case runtime.Oracle:
		program = "etcdutl"
	case runtime.Name == "split":
		program = "consensus-node"
	}
	return runtime.Start(t, framework.Options{Before: from(program, file, more...), NoSpace: true})
}

// members are the URLs that answer for one member each.
func members(c *framework.Cluster) []string {
	if c.Name != "split" {
		return c.Endpoints()
	}
	var urls []string
	for _, name := range []string{"n1", "n2", "n3"} {
		urls = append(urls, fmt.Sprintf("http://127.0.0.1:%d", c.Ports[name].Admin))
	}
	return urls
}

// client is a client of one member or proxy.
func client(t *testing.T, c *framework.Cluster, endpoint string) *clientv3.Client {
	t.Helper()
	return c.ClientAt(t, endpoint)
}
