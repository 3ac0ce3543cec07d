package runner_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

func TestStartPrintsEachProcessAndStopsLastTierFirst(t *testing.T) {
	r, out := started(t, []string{"bus"}, []string{"node"}, []string{"edge"})
	for _, p := range r.Processes() {
		require.True(t, p.Running, p.Name)
		require.Contains(t, out.String(), fmt.Sprintf("%s pid %d metrics %s\n", p.Name, p.PID, p.Metrics))
	}
	require.NoError(t, r.Stop(bounded(t)))

	var goodbyes []string
	for line := range strings.Lines(out.String()) {
		if name, ok := strings.CutSuffix(line, " | goodbye\n"); ok {
			goodbyes = append(goodbyes, name)
		}
	}
	require.Equal(t, []string{"edge", "node", "bus"}, goodbyes)
	for _, p := range r.Processes() {
		require.False(t, p.Running, p.Name)
		require.ErrorIs(t, syscall.Kill(p.PID, 0), syscall.ESRCH, "%s is still there", p.Name)
	}
	require.NotContains(t, out.String(), "ended:", "what we stop is no surprise")
}

func TestKilledProcessIsReportedAndStartsAgain(t *testing.T) {
	r, out := started(t, []string{"a", "b"})
	before := r.Processes()

	_, err := r.StartAgain(bounded(t), "a")
	require.ErrorContains(t, err, "a is running")

	require.NoError(t, r.Kill(bounded(t), "a", syscall.SIGKILL))
	require.Contains(t, out.String(), fmt.Sprintf("a pid %d ended: signal: killed; mend a\n", before[0].PID))
	require.True(t, r.Processes()[1].Running, "the others run on")
	require.ErrorContains(t, r.Kill(bounded(t), "a", syscall.SIGKILL), "a is not running")

	pid, err := r.StartAgain(bounded(t), "a")
	require.NoError(t, err)
	require.NotEqual(t, before[0].PID, pid)
	require.Equal(t, runner.Status{Name: "a", PID: pid, Running: true, Metrics: before[0].Metrics}, r.Processes()[0])
	require.Equal(t, before[1], r.Processes()[1])
}

func TestPausedProcessStillStops(t *testing.T) {
	r, out := started(t, []string{"a"})
	require.NoError(t, r.Kill(bounded(t), "a", syscall.SIGSTOP))
	require.NoError(t, r.Stop(bounded(t)))
	require.Contains(t, out.String(), "a | goodbye\n")
}

func TestStopKillsWhatDoesNotEnd(t *testing.T) {
	r := runner.New(runner.Layout{Tiers: [][]runner.Process{
		{fakeProcess(t, "deaf", "deaf "+addresses(t, 1)[0])},
	}}, runner.Options{Grace: 100 * time.Millisecond})
	require.NoError(t, r.Start(bounded(t)))
	require.ErrorContains(t, r.Stop(bounded(t)), "deaf did not end within 100ms and was killed")
	require.False(t, r.Processes()[0].Running)
	_, err := r.StartAgain(bounded(t), "deaf")
	require.ErrorIs(t, err, runner.ErrStopped)
}

func TestStartThatFailsStopsTheRest(t *testing.T) {
	addrs := addresses(t, 2)
	failing := fakeProcess(t, "bad", "fail")
	failing.Ready = "http://" + addrs[1] + "/health"
	out := &lines{}
	r := runner.New(runner.Layout{Tiers: [][]runner.Process{
		{fakeProcess(t, "good", "serve "+addrs[0])}, {failing},
	}}, runner.Options{Output: out})
	err := r.Start(bounded(t))
	require.EqualError(t, err, "bad ended before it was ready: exit status 3")
	require.Contains(t, out.String(), "bad | cannot start\n")
	require.False(t, r.Processes()[0].Running)
}

func TestStartGivesUpWhenNotReadyInTime(t *testing.T) {
	addrs := addresses(t, 2)
	never := fakeProcess(t, "never", "serve "+addrs[0])
	never.Ready = "http://" + addrs[1] + "/health" // where it does not listen
	r := runner.New(runner.Layout{Tiers: [][]runner.Process{{never}}}, runner.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := r.Start(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "never is not ready")
	require.False(t, r.Processes()[0].Running)
}

func TestOutputIsWholeLinesWithTheName(t *testing.T) {
	out := &lines{}
	p := fakeProcess(t, "talker", "lines")
	r := runner.New(runner.Layout{Tiers: [][]runner.Process{{p}}}, runner.Options{Output: out})
	require.NoError(t, r.Start(bounded(t)))
	require.NoError(t, r.Wait(bounded(t), "talker"))
	require.NoError(t, r.Stop(bounded(t)))
	require.Contains(t, out.String(), "talker | one\ntalker | two\ntalker | three without an end\n")
}

func TestUnknownName(t *testing.T) {
	r := runner.New(runner.Layout{}, runner.Options{})
	_, err := r.StartAgain(t.Context(), "n9")
	require.ErrorIs(t, err, runner.ErrUnknown)
	require.ErrorIs(t, r.Kill(t.Context(), "n9", os.Interrupt), runner.ErrUnknown)
	require.ErrorIs(t, r.Wait(t.Context(), "n9"), runner.ErrUnknown)
}

func TestMissingProgramIsNamed(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "nothing")
	r := runner.New(runner.Layout{Tiers: [][]runner.Process{{{Name: "n1", Path: missing}}}}, runner.Options{})
	err := r.Start(bounded(t))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "start n1")
}
