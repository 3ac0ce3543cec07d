package runner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

// fakeEnv makes the test binary play a service instead of running tests; its value
// says how: "serve ADDR", "deaf ADDR" (ignores SIGTERM), "fail" or "lines".
const fakeEnv = "RUNNER_TEST_FAKE"

func TestMain(m *testing.M) {
	if how := os.Getenv(fakeEnv); how != "" {
		os.Exit(fake(how))
	}
	goleak.VerifyTestMain(m)
}

func fake(how string) int {
	verb, addr, _ := strings.Cut(how, " ")
	switch verb {
	case "fail":
		_, _ = fmt.Fprintln(os.Stderr, "cannot start")
		return 3
	case "lines":
		fmt.Print("one\ntwo\nthree without an end")
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if verb == "deaf" {
		signal.Ignore(syscall.SIGTERM)
		ctx = context.Background()
	}
	server := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("goodbye")
	return 0
}

// fakeProcess is the test binary as a process of a layout.
func fakeProcess(t *testing.T, name, how string) runner.Process {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	p := runner.Process{Name: name, Path: self, Env: []string{fakeEnv + "=" + how, "GORACE=atexit_sleep_ms=0"}, Dir: t.TempDir()}
	if _, addr, ok := strings.Cut(how, " "); ok {
		p.Metrics = "http://" + addr + "/metrics"
		p.Ready = "http://" + addr + "/health"
	}
	return p
}

// lines is an output that a test may read while processes write.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ io.Writer = (*lines)(nil)

// addresses are n free addresses.
func addresses(t *testing.T, n int) []string {
	t.Helper()
	plan, err := runner.FreePorts(t.Context(), "127.0.0.1")
	require.NoError(t, err)
	var out []string
	for _, ports := range plan {
		out = append(out, fmt.Sprintf("127.0.0.1:%d", ports.Metrics))
	}
	return out[:n]
}

// started is a running cluster of fakes, in tiers of the names given, and what it
// wrote. It is stopped with the test.
func started(t *testing.T, tiers ...[]string) (*runner.Runner, *lines) {
	t.Helper()
	var layout runner.Layout
	addrs := addresses(t, 10)
	for _, names := range tiers {
		var tier []runner.Process
		for _, name := range names {
			tier = append(tier, fakeProcess(t, name, "serve "+addrs[0]))
			addrs = addrs[1:]
		}
		layout.Tiers = append(layout.Tiers, tier)
	}
	out := &lines{}
	r := runner.New(layout, runner.Options{Output: out, Grace: 10 * time.Second, Hint: "mend %s"})
	require.NoError(t, r.Start(bounded(t)))
	t.Cleanup(func() { require.NoError(t, r.Stop(context.Background())) })
	return r, out
}

// bounded is the test's context with a limit that only a broken test reaches.
func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
