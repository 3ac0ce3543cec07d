package e2e

import (
	"encoding/base64"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// dumpLog runs "log dump" of a program and gives what it wrote.
func dumpLog(t *testing.T, program, dir string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(bounded(t), framework.Program(t, program), "log", "dump", "--data-dir", dir)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Both programs that have a log dump it, of a stopped node alone, and alike.
func TestLogDump(t *testing.T) {
	c := framework.Standalone(t, framework.Options{})
	s := &system{Cluster: c, client: c.Client(t)}
	put(t, s, "greeting", "hello")
	dir := filepath.Join(c.Data, "s1")
	programs := []string{"holdfast", "consensus-node"}
	for _, program := range programs {
		stdout, stderr, code := dumpLog(t, program, dir)
		require.Equal(t, 1, code, stderr)
		require.Empty(t, stdout)
		require.Contains(t, stderr, "is in use by a running node: stop it first")
		require.Equal(t, 1, strings.Count(stderr, "\n"))
	}
	c.Kill(t, "s1", syscall.SIGKILL)
	var first string
	for i, program := range programs {
		stdout, stderr, code := dumpLog(t, program, dir)
		require.Zero(t, code, stderr)
		require.Contains(t, stdout, `"put":{"key":"`+base64.StdEncoding.EncodeToString([]byte("greeting"))+`"`)
		next := 1
		for line := range strings.Lines(stdout) {
			var entry struct {
				Index, Term int
				Type        string
			}
			require.NoError(t, json.Unmarshal([]byte(line), &entry))
			require.Equal(t, next, entry.Index)
			require.NotZero(t, entry.Term)
			require.Contains(t, []string{"EntryNormal", "EntryConfChange"}, entry.Type)
			next++
		}
		if i > 0 {
			require.Equal(t, first, stdout)
		}
		first = stdout
	}
	c.Start(t, "s1")
	require.Equal(t, "hello", string(get(t, s, "greeting").Kvs[0].Value))
}
