package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/lifecycle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// part is a part that notes everything and works until it is told to end.
func (j *journal) part(name string) lifecycle.Part {
	return lifecycle.Part{
		Name:  name,
		Start: func(context.Context) error { j.note("start " + name); return nil },
		Run:   func(ctx context.Context) error { <-ctx.Done(); j.note("end " + name); return ctx.Err() },
		Stop:  func(context.Context) error { j.note("stop " + name); return nil },
	}
}

var discard = slog.New(slog.DiscardHandler)

func stateOf(t *testing.T, g *lifecycle.Group, name string) lifecycle.State {
	t.Helper()
	s, ok := g.State(name)
	require.True(t, ok)
	return s
}

func TestStartsInOrderAndStopsInReverse(t *testing.T) {
	var j journal
	g := lifecycle.NewGroup(discard, 0, j.part("a"), j.part("b"), lifecycle.Part{Name: "idle"}, j.part("c"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	require.Equal(t, lifecycle.New, stateOf(t, g, "b"))
	go func() { ended <- g.Run(ctx) }()
	<-g.Ready()
	require.Equal(t, lifecycle.Running, stateOf(t, g, "b"))
	cancel()
	require.NoError(t, <-ended)
	require.Equal(t, []string{
		"start a", "start b", "start c",
		"stop c", "end c", "stop b", "end b", "stop a", "end a",
	}, j.lines)
	require.Equal(t, lifecycle.Stopped, stateOf(t, g, "b"))
	_, ok := g.State("nobody")
	require.False(t, ok)
}

func TestOneFailingStopsAll(t *testing.T) {
	var j journal
	boom := failure.New(failure.Storage, "boom")
	bad := j.part("b")
	bad.Run = func(context.Context) error { return boom }
	g := lifecycle.NewGroup(discard, 0, j.part("a"), bad)
	err := g.Run(t.Context())
	require.ErrorIs(t, err, boom)
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
	require.Equal(t, []string{"start a", "start b", "stop b", "stop a", "end a"}, j.lines)
	require.Equal(t, lifecycle.Failed, stateOf(t, g, "b"))
	require.Equal(t, lifecycle.Stopped, stateOf(t, g, "a"))
}

func TestFailedStartStopsWhatRuns(t *testing.T) {
	var j journal
	boom := errors.New("boom")
	bad := j.part("b")
	bad.Start = func(context.Context) error { return boom }
	g := lifecycle.NewGroup(discard, 0, j.part("a"), bad, j.part("c"))
	err := g.Run(t.Context())
	require.ErrorIs(t, err, boom)
	require.EqualError(t, err, "b: boom")
	require.Equal(t, []string{"start a", "stop a", "end a"}, j.lines)
	require.Equal(t, lifecycle.New, stateOf(t, g, "c"))
	select {
	case <-g.Ready():
		t.Fatal("ready")
	default:
	}
}

func TestFailureEndsTheStartOfOthers(t *testing.T) {
	boom := errors.New("boom")
	g := lifecycle.NewGroup(discard, 0,
		lifecycle.Part{Name: "a", Run: func(context.Context) error { return boom }},
		lifecycle.Part{Name: "b", Start: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
	require.EqualError(t, g.Run(t.Context()), "a: boom")
}

func TestSignalWhileStartingIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := lifecycle.NewGroup(discard, 0,
		lifecycle.Part{Name: "a", Start: func(ctx context.Context) error { cancel(); <-ctx.Done(); return ctx.Err() }})
	require.NoError(t, g.Run(ctx))
}

func TestPartThatIsDoneStopsNobody(t *testing.T) {
	var j journal
	done := j.part("once")
	done.Run = func(context.Context) error { return nil }
	g := lifecycle.NewGroup(discard, 0, done, j.part("b"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	<-g.Ready()
	require.Equal(t, lifecycle.Running, stateOf(t, g, "b"))
	cancel()
	require.NoError(t, <-ended)
}

func TestStopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var j journal
		hangs := lifecycle.Part{Name: "hangs", Run: func(context.Context) error { <-release; return nil }}
		g := lifecycle.NewGroup(discard, 3*time.Second, j.part("a"), hangs)
		ctx, cancel := context.WithCancel(t.Context())
		cancelAt := time.AfterFunc(time.Second, cancel)
		defer cancelAt.Stop()
		begin := time.Now()
		err := g.Run(ctx)
		require.ErrorContains(t, err, "hangs did not stop in time")
		require.Equal(t, 4*time.Second, time.Since(begin))
		require.Contains(t, j.lines, "end a", "the others are stopped all the same")
		require.Equal(t, lifecycle.Stopped, stateOf(t, g, "a"))
		close(release)
		synctest.Wait()
	})
}

func TestErrorsWhileStoppingAreReturned(t *testing.T) {
	var j journal
	a, b := j.part("a"), j.part("b")
	a.Stop = func(context.Context) error { return failure.New(failure.Storage, "close") }
	b.Run = func(context.Context) error { return errors.New("first") }
	err := lifecycle.NewGroup(discard, 0, a, b).Run(t.Context())
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
	require.Regexp(t, "^b: first\n", err.Error())
}

func TestMainAnswersSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		var stderr bytes.Buffer
		code := lifecycle.Main("test", &stderr, func(ctx context.Context) error {
			if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		require.Equal(t, failure.ExitOK, code)
		require.Empty(t, stderr.String())
	}
}

func TestMainPrintsOneLine(t *testing.T) {
	var stderr bytes.Buffer
	code := lifecycle.Main("test", &stderr, func(context.Context) error {
		return errors.Join(failure.New(failure.Config, "bad flag"), errors.New("and more"))
	})
	require.Equal(t, failure.ExitInput, code)
	require.Equal(t, "test: bad flag; and more\n", stderr.String())
}
