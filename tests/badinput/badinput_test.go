// Package badinput holds what a program does with input that cannot be right: one line on stderr that says what and how to
// mend it, exit code 1, and nothing written.
package badinput

import (
	"context"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast")...))
}

// refusal is what a program did that would not start.
type refusal struct{ stdout, stderr string }

// refuse runs a program, which must end by itself with exit code 1 and one line on stderr.
func refuse(t *testing.T, dir, program string, env []string, args ...string) refusal {
	t.Helper()
	const endTimeout = 20 * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), endTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, framework.Program(t, program), args...)
	cmd.Dir, cmd.Env = dir, append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	r := refusal{stdout.String(), stderr.String()}
	require.NoError(t, ctx.Err(), "it went on; stdout %q, stderr %q", r.stdout, r.stderr)
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "it ended as if all were well; stdout %q, stderr %q", r.stdout, r.stderr)
	require.Equal(t, 1, exit.ExitCode(), "stderr: %s", r.stderr)
	require.Equal(t, 1, strings.Count(r.stderr, "\n"), "one line, not: %s", r.stderr)
	require.True(t, strings.HasPrefix(r.stderr, program+": "), r.stderr)
	require.Empty(t, r.stdout)
	return r
}

// files are all files and folders below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			out = append(out, path)
		}
		return err
	}))
	return out
}

// taken is a port that somebody listens on.
func taken(t *testing.T) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return "http://" + l.Addr().String()
}

// local are flags under which a standalone would start, on ports that the kernel picks.
func local(more ...string) []string {
	return append([]string{
		"--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:1",
		"--listen-peer-urls", "http://127.0.0.1:0", "--initial-advertise-peer-urls", "http://127.0.0.1:2",
		"--initial-cluster", "default=http://127.0.0.1:2",
	}, more...)
}

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		name, program string
		args, env     []string
		want          []string // parts of the line
	}{
		{"unknown flag", "holdfast", local("--nope"), nil, []string{"unknown flag: --nope", "--help"}},
		{"etcd's flag", "holdfast", local("--cert-file", "x"), nil, []string{"--cert-file is an etcd flag that Holdfast does not support yet"}},
		{"etcd's flag, one dash", "holdfast", local("-auto-tls"), nil, []string{"--auto-tls is an etcd flag that Holdfast does not support yet"}},
		{"etcd's variable", "holdfast", local(), []string{"ETCD_CERT_FILE=x"}, []string{"ETCD_CERT_FILE", "does not support yet"}},
		{"number", "holdfast", local("--heartbeat-interval", "soon"), nil, []string{`"soon"`, "--heartbeat-interval"}},
		{"number in a variable", "holdfast", local(), []string{"ETCD_HEARTBEAT_INTERVAL=soon"}, []string{"ETCD_HEARTBEAT_INTERVAL"}},
		{"malformed URL", "holdfast", []string{"--listen-client-urls", "127.0.0.1", "--advertise-client-urls", "http://127.0.0.1:1"}, nil, []string{"--listen-client-urls", "127.0.0.1"}},
		{"URL without port", "holdfast", []string{"--listen-peer-urls", "http://127.0.0.1"}, nil, []string{"--listen-peer-urls"}},
		{"https", "holdfast", []string{"--listen-peer-urls", "https://127.0.0.1:1"}, nil, []string{"--listen-peer-urls"}},
		{"listen without advertise", "holdfast", []string{"--listen-client-urls", "http://127.0.0.1:0"}, nil, []string{"--advertise-client-urls"}},
		{"health of a proxy without a metrics URL", "proxy", []string{"health"}, nil, []string{"--listen-metrics-urls is empty"}},
		{
			"health where nobody is", "holdfast",
			[]string{"health", "--listen-client-urls", "http://127.0.0.1:1"},
			nil,
			[]string{"not healthy", "127.0.0.1:1/health"},
		},
		{"peer list without the name", "holdfast", local("--name", "other"), nil, []string{`"other"`, "--initial-cluster"}},
		{"peer list with other URLs", "holdfast", local("--initial-advertise-peer-urls", "http://127.0.0.1:3"), nil, []string{"--initial-advertise-peer-urls", "http://127.0.0.1:3"}},
		{"election below heartbeat", "holdfast", local("--heartbeat-interval", "100", "--election-timeout", "200"), nil, []string{"--election-timeout"}},
		{"retention", "holdfast", local("--auto-compaction-retention", "soon"), nil, []string{"--auto-compaction-retention", `"soon"`}},
		{"compaction mode", "holdfast", local("--auto-compaction-mode", "hourly"), nil, []string{"--auto-compaction-mode", "hourly"}},
		{"no configuration file", "holdfast", []string{"--config-file", "none.yml"}, nil, []string{"none.yml"}},
		{"stray argument", "holdfast", local("stray"), nil, []string{`"stray"`}},
		{"unknown flag", "consensus-node", []string{"--nope"}, nil, []string{"unknown flag: --nope"}},
		{"unknown flag", "proxy", []string{"--nope"}, nil, []string{"unknown flag: --nope"}},
		{"unknown flag", "watch-hub", []string{"--nope"}, nil, []string{"unknown flag: --nope"}},
		{"unknown flag", "lease-service", []string{"--nope"}, nil, []string{"unknown flag: --nope"}},
		{"no nodes", "proxy", []string{"--listen-client-urls", "http://127.0.0.1:0"}, nil, []string{"--consensus-endpoints"}},
		{"no nodes", "watch-hub", nil, nil, []string{"--consensus-endpoints"}},
		{"no nodes", "lease-service", nil, nil, []string{"--consensus-endpoints"}},
		{"sample ratio", "holdfast", local("--otlp-endpoint", "127.0.0.1:4317", "--otlp-sample-ratio", "1.5"), nil, []string{"sample ratio 1.5"}},
		{"sample ratio without a receiver", "holdfast", local("--otlp-sample-ratio", "-0.1"), nil, []string{"sample ratio -0.1", "0 and 1"}},
		{"sample ratio of a proxy", "proxy", []string{"--consensus-endpoints", "http://127.0.0.1:1", "--otlp-sample-ratio", "NaN"}, nil, []string{"sample ratio NaN"}},
		{"trace receiver", "holdfast", local("--otlp-endpoint", "https://here:1"), nil, []string{"https://here:1"}},
	} {
		t.Run(c.program+" "+c.name, func(t *testing.T) {
			dir := t.TempDir()
			r := refuse(t, dir, c.program, c.env, c.args...)
			for _, part := range c.want {
				require.Contains(t, r.stderr, part)
			}
			require.Empty(t, files(t, dir), "something was written")
		})
	}
}

func TestConfigFile(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"etcd's key", "wal-dir: /w\n", "wal-dir"},
		{"unknown key", "nope: 1\n", "nope"},
		{"no YAML", "name: [\n", "not valid YAML"},
		{"value", "heartbeat-interval: soon\n", "heartbeat-interval"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "c.yml"), []byte(c.text), 0o600))
			r := refuse(t, dir, "holdfast", nil, "--config-file", "c.yml")
			require.Contains(t, r.stderr, "c.yml")
			require.Contains(t, r.stderr, c.want)
			require.Len(t, files(t, dir), 1, "something was written")
		})
	}
}

func TestPortInUse(t *testing.T) {
	for _, c := range []struct{ name, flag string }{
		{"clients", "--listen-client-urls"}, {"peers", "--listen-peer-urls"}, {"metrics", "--listen-metrics-urls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, url := t.TempDir(), taken(t)
			r := refuse(t, dir, "holdfast", nil, local(c.flag, url)...)
			require.Contains(t, r.stderr, strings.TrimPrefix(url, "http://"))
			require.Contains(t, r.stderr, "in use")
			require.Empty(t, files(t, dir), "something was written")
		})
	}
}

func TestDataDirectory(t *testing.T) {
	// One that runs, with data in s1.
	c := framework.Standalone(t, framework.Options{})
	inUse := filepath.Join(c.Data, "s1")
	t.Run("in use", func(t *testing.T) {
		dir := t.TempDir()
		r := refuse(t, dir, "holdfast", nil, local("--data-dir", inUse)...)
		require.Contains(t, r.stderr, inUse)
		require.Contains(t, r.stderr, "in use")
		require.Empty(t, files(t, dir))
	})
	c.Kill(t, "s1", syscall.SIGTERM)
	c.Wait(t, "s1")
	t.Run("of another cluster", func(t *testing.T) {
		before := files(t, inUse)
		r := refuse(t, t.TempDir(), "holdfast", nil, local("--data-dir", inUse)...)
		require.Contains(t, r.stderr, inUse)
		require.Contains(t, r.stderr, "another cluster")
		require.Equal(t, before, files(t, inUse))
	})
	t.Run("written by etcd", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "data", "member", "wal"), 0o700))
		require.NoError(t, os.MkdirAll(filepath.Join(dir, "data", "member", "snap"), 0o700))
		before := files(t, dir)
		r := refuse(t, dir, "holdfast", nil, local("--data-dir", "data")...)
		require.Contains(t, r.stderr, "etcd")
		require.Contains(t, r.stderr, "snapshot restore")
		require.Equal(t, before, files(t, dir))
	})
	t.Run("is a file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "data"), nil, 0o600))
		r := refuse(t, dir, "holdfast", nil, local("--data-dir", "data")...)
		require.Contains(t, r.stderr, "--data-dir")
		require.Len(t, files(t, dir), 1)
	})
	t.Run("below a file", func(t *testing.T) {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "data"), nil, 0o600))
		r := refuse(t, dir, "holdfast", nil, local("--data-dir", "data/below")...)
		require.Contains(t, r.stderr, "data/below")
		require.Len(t, files(t, dir), 1)
	})
	t.Run("unreadable", func(t *testing.T) { unreadable(t) })
}

// nobody is the user that has no rights anywhere.
const nobody = 65534

// unreadable runs the program as somebody who may not read the directory; the superuser may read everything.
func unreadable(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	require.NoError(t, os.Mkdir(data, 0o000))
	t.Cleanup(func() { _ = os.Chmod(data, 0o700) })
	if os.Geteuid() != 0 {
		r := refuse(t, dir, "holdfast", nil, local("--data-dir", data)...)
		require.Contains(t, r.stderr, data)
		return
	}
	// Nobody must reach the program and the folder above.
	place, err := os.MkdirTemp("/tmp", "holdfast-badinput-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(place) })
	require.NoError(t, os.Chmod(place, 0o755))
	program := filepath.Join(place, "holdfast")
	text, err := os.ReadFile(framework.Program(t, "holdfast"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, text, 0o755))
	data = filepath.Join(place, "data")
	require.NoError(t, os.Mkdir(data, 0o700))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, local("--data-dir", data)...)
	cmd.Dir, cmd.Env = place, []string{}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	require.Equal(t, 1, exit.ExitCode(), stderr.String())
	require.Equal(t, 1, strings.Count(stderr.String(), "\n"), stderr.String())
	require.Contains(t, stderr.String(), data)
	require.Empty(t, files(t, data))
}
