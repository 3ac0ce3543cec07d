package runner_test

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// A process that is added later stops in its tier's turn, and can be started again with other arguments.
func TestProcessIsAdded(t *testing.T) {
	r, out := started(t, []string{"node"}, []string{"edge"})
	late := fakeProcess(t, "late", "serve "+addresses(t, 10)[9])
	require.NoError(t, r.Add(bounded(t), 0, late))
	require.Error(t, r.Add(bounded(t), 0, late), "the name is taken")
	require.Error(t, r.Add(bounded(t), 2, fakeProcess(t, "later", "lines")), "no such tier")
	require.Len(t, r.Processes(), 3)
	require.Equal(t, "late", r.Processes()[1].Name)
	require.True(t, r.Processes()[1].Running)

	_, ended := r.ExitCode("late")
	require.False(t, ended)
	require.NoError(t, r.Kill(bounded(t), "late", syscall.SIGKILL))
	_, ended = r.ExitCode("late")
	require.False(t, ended, "a signal is no exit code")
	r.Replace("late", func(p *runner.Process) { p.Env[0] = fakeEnv + "=fail" })
	_, err := r.StartAgain(bounded(t), "late")
	require.ErrorContains(t, err, "late ended before it was ready")
	code, ended := r.ExitCode("late")
	require.True(t, ended)
	require.Equal(t, 3, code)
	require.Contains(t, out.String(), "late | cannot start\n")
}
