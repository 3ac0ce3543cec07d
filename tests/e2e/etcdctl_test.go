package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func etcdctlCases() []testCase {
	return []testCase{
		{name: "etcdctl kv", run: etcdctlKV},
		{name: "etcdctl watch", run: etcdctlWatch},
		{name: "etcdctl lease", run: etcdctlLease},
		{name: "etcdctl cluster", run: etcdctlCluster},
	}
}

// ctl runs etcdctl, which must succeed, and gives what it wrote.
func ctl(t *testing.T, s *system, args ...string) string {
	t.Helper()
	out, errs, err := s.Etcdctl(t, args...)
	require.NoError(t, err, "etcdctl %s: %s", strings.Join(args, " "), errs)
	return out
}

func etcdctlKV(t *testing.T, s *system) {
	k := key(t, "greeting")
	require.Equal(t, "OK\n", ctl(t, s, "put", k, "hello"))
	require.Equal(t, k+"\nhello\n", ctl(t, s, "get", k))
	require.Equal(t, "OK\n"+k+"\nhello\n", ctl(t, s, "put", "--prev-kv", k, "hi"))
	require.Equal(t, k+"\n", ctl(t, s, "get", "--prefix", "--keys-only", k)[:len(k)+1])
	require.Equal(t, "1\n", ctl(t, s, "del", k))
	require.Empty(t, ctl(t, s, "get", k))

	var got struct {
		Header struct{ Revision int64 }
	}
	require.NoError(t, json.Unmarshal([]byte(ctl(t, s, "get", k, "-w", "json")), &got))
	require.Equal(t, fmt.Sprintf("compacted revision %d\n", got.Header.Revision), ctl(t, s, "compact", fmt.Sprint(got.Header.Revision)))
	_, errs, err := s.Etcdctl(t, "get", k, "--rev", "1")
	require.Error(t, err)
	require.Contains(t, errs, "mvcc: required revision has been compacted")
}

func etcdctlWatch(t *testing.T, s *system) {
	k := key(t, "k")
	revision := put(t, s, k, "1")
	ctx, cancel := context.WithCancel(bounded(t))
	cmd := exec.CommandContext(ctx, framework.Program(t, "etcdctl"),
		"--endpoints", s.Endpoints()[0], "watch", k, "--rev", fmt.Sprint(revision))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	lines := bufio.NewScanner(out)
	expect := func(want ...string) {
		t.Helper()
		for _, line := range want {
			require.True(t, lines.Scan())
			require.Equal(t, line, lines.Text())
		}
	}
	expect("PUT", k, "1")
	put(t, s, k, "2")
	expect("PUT", k, "2")
	ctl(t, s, "del", k)
	expect("DELETE", k, "")
}

func etcdctlLease(t *testing.T, s *system) {
	// "lease ID granted with TTL(300s)"
	words := strings.Fields(ctl(t, s, "lease", "grant", "300"))
	require.Len(t, words, 5)
	id, k := words[1], key(t, "k")
	ctl(t, s, "put", "--lease", id, k, "v")
	require.Contains(t, ctl(t, s, "lease", "list"), id)
	require.Contains(t, ctl(t, s, "lease", "timetolive", "--keys", id), "attached keys(["+k+"])")
	require.Equal(t, "lease "+id+" keepalived with TTL(300)\n", ctl(t, s, "lease", "keep-alive", "--once", id))
	require.Equal(t, "lease "+id+" revoked\n", ctl(t, s, "lease", "revoke", id))
	require.Empty(t, ctl(t, s, "get", k))
	require.Equal(t, "lease "+id+" already expired\n", ctl(t, s, "lease", "timetolive", id))
}

func etcdctlCluster(t *testing.T, s *system) {
	require.Contains(t, ctl(t, s, "member", "list"), ", started, ")
	status := ctl(t, s, "endpoint", "status")
	for _, endpoint := range s.Endpoints() {
		require.Contains(t, status, endpoint)
	}
	require.Contains(t, status, s.version())
	_, health, err := s.Etcdctl(t, "endpoint", "health")
	require.NoError(t, err, health)
}
