package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fakeEnv makes the test binary play the programs of a cluster: it answers on the
// URL of --listen-metrics-urls (the bus: on the http line of its configuration).
const fakeEnv = "CLUSTER_TEST_FAKE"

func TestMain(m *testing.M) {
	if os.Getenv(fakeEnv) != "" {
		os.Exit(fake())
	}
	os.Exit(m.Run())
}

func fake() int {
	if filepath.Base(os.Args[0]) == "holdfast" {
		return fakeHoldfast()
	}
	addr := ""
	for i, arg := range os.Args[:len(os.Args)-1] {
		switch next := os.Args[i+1]; arg {
		case "--listen-metrics-urls":
			addr = strings.TrimPrefix(next, "http://")
		case "--config":
			text, _ := os.ReadFile(next)
			addr = string(regexp.MustCompile(`(?m)^http: "(.*)"$`).FindSubmatch(text)[1])
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fakeHoldfast ends with the code that it is given, or is ready until SIGTERM.
func fakeHoldfast() int {
	if len(os.Args) > 1 && os.Args[1] == "--broken" {
		_, _ = fmt.Fprintln(os.Stderr, "holdfast: port 2379 is in use")
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	fmt.Println("holdfast: ready, clients at http://127.0.0.1:2379")
	<-ctx.Done()
	fmt.Println("stopped")
	return 0
}

// programs is a folder in which each program is the test binary.
func programs(t *testing.T) string {
	t.Helper()
	t.Setenv(fakeEnv, "1")
	t.Setenv("GORACE", "atexit_sleep_ms=0")
	self, err := os.Executable()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, name := range []string{"nats-server", "consensus-node", "watch-hub", "lease-service", "proxy", "holdfast"} {
		require.NoError(t, os.Symlink(self, filepath.Join(dir, name)))
	}
	return dir
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// command is a command that runs until it is stopped, with its output to read.
type command struct {
	out  *io.PipeReader
	read bytes.Buffer
	stop context.CancelFunc
	err  chan error
}

func begin(t *testing.T, args ...string) *command {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	from, to := io.Pipe()
	c := &command{out: from, stop: cancel, err: make(chan error, 1)}
	go func() {
		c.err <- run(ctx, args, to, io.Discard)
		_ = to.Close()
	}()
	t.Cleanup(cancel)
	return c
}

// until reads the output up to text, or to its end.
func (c *command) until(t *testing.T, text string) {
	t.Helper()
	one := make([]byte, 1)
	for !strings.HasSuffix(c.read.String(), text) {
		_, err := c.out.Read(one)
		require.NoError(t, err, "ended without %q: %s", text, c.read.String())
		c.read.Write(one)
	}
}

// finish stops the command and returns how it ended.
func (c *command) finish() error {
	c.stop()
	_, _ = io.Copy(&c.read, c.out)
	return <-c.err
}

func TestSplitRunsReportsAndStartsAgain(t *testing.T) {
	bin, data := programs(t), shortDir(t)
	c := begin(t, "--bin", bin, "--data-dir", data, "--free-ports")
	c.until(t, "holdfast: ready, clients at ")
	pids := regexp.MustCompile(`(?m)^(\w+) pid (\d+) metrics (http://\S+)$`).FindAllStringSubmatch(c.read.String(), -1)
	require.Len(t, pids, 10)
	c.until(t, "\n")

	var stdout bytes.Buffer
	err := run(t.Context(), []string{"start", "--data-dir", data, "hub2"}, &stdout, io.Discard)
	require.ErrorContains(t, err, "hub2 is running")

	for _, p := range pids {
		if p[1] == "hub2" {
			var pid int
			_, err := fmt.Sscan(p[2], &pid)
			require.NoError(t, err)
			require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	c.until(t, "ended: signal: killed; start it again with `make cluster-start P=hub2`\n")
	go func() { _, _ = io.Copy(io.Discard, c.out) }()
	require.NoError(t, run(t.Context(), []string{"start", "--data-dir", data, "hub2"}, &stdout, io.Discard))
	require.Regexp(t, `^hub2 pid \d+\n$`, stdout.String())

	require.ErrorContains(t, run(t.Context(), []string{"--data-dir", data, "--bin", bin}, io.Discard, io.Discard),
		"a cluster is running already")
	c.stop()
	require.NoError(t, <-c.err)
	require.ErrorContains(t, run(t.Context(), []string{"start", "--data-dir", data, "hub2"}, io.Discard, io.Discard),
		"no cluster is running there")
}

func TestStandaloneSaysWhatToTry(t *testing.T) {
	c := begin(t, "standalone", "--bin", programs(t), "--", "--name", "default")
	c.until(t, "watch greeting\n")
	require.NoError(t, c.finish())
	require.Regexp(t, `(?s)^holdfast: ready, clients at http://127.0.0.1:2379\nTry, in another terminal:\n`+
		`  \S+/etcdctl put greeting hello\n  \S+/etcdctl get greeting\n  \S+/etcdctl watch greeting\nstopped\n$`, c.read.String())
}

func TestStandaloneEndsWithTheProgramsCode(t *testing.T) {
	var stderr bytes.Buffer
	err := run(t.Context(), []string{"standalone", "--bin", programs(t), "--", "--broken"}, io.Discard, &stderr)
	require.Equal(t, childError(1), err)
	require.Equal(t, "holdfast: port 2379 is in use\n", stderr.String())
	require.Equal(t, 1, exitCode(err, &stderr))
	require.Equal(t, "holdfast: port 2379 is in use\n", stderr.String(), "said once")
}

func TestBadArguments(t *testing.T) {
	for want, args := range map[string][]string{
		"unknown command":           {"fly"},
		"name one process":          {"start"},
		"unexpected argument":       {"--bin", "bin", "n1"},
		"flag provided but not":     {"--no-such-flag"},
		"not between 1 and 65535":   {"--port-shift", "65000"},
		"no cluster is running":     {"start", "--data-dir", t.TempDir(), "n1"},
		"start holdfast: fork/exec": {"standalone", "--bin", t.TempDir()},
	} {
		err := run(t.Context(), args, io.Discard, io.Discard)
		require.ErrorContains(t, err, want)
		require.Equal(t, 1, exitCode(err, io.Discard))
	}
	require.Equal(t, 0, exitCode(flag.ErrHelp, io.Discard))
}
