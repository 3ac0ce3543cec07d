package snapshot

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// contents are all names below a folder.
func contents(t *testing.T, dir string) (names []string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	}))
	return names
}

// What the command refuses: with code 1 and one line that says what to do, and nothing is written.
func TestRefused(t *testing.T) {
	source := framework.Etcd(t, framework.Options{})
	write(t, source, false)
	endpoint := source.Endpoints()[0]
	good := save(t, endpoint)
	must(t, "etcdctl", "--endpoints", endpoint, "user", "add", "root:secret")
	must(t, "etcdctl", "--endpoints", endpoint, "user", "grant-role", "root", "root")
	must(t, "etcdctl", "--endpoints", endpoint, "auth", "enable")
	guarded := filepath.Join(t.TempDir(), "guarded.db")
	must(t, "etcdctl", "--endpoints", endpoint, "--user", "root:secret", "snapshot", "save", guarded)
	database := filepath.Join(source.Data, "s1", "member", "snap", "db")

	data, err := os.ReadFile(good)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	damaged := filepath.Join(t.TempDir(), "damaged.db")
	require.NoError(t, os.WriteFile(damaged, data, 0o600))
	for name, c := range map[string]struct {
		args []string // after "snapshot"
		want string
	}{
		"no command":       {nil, "restore"},
		"another command":  {[]string{"save"}, "\"save\""},
		"no file":          {[]string{"restore"}, "exactly one argument"},
		"two files":        {[]string{"restore", good, good}, "exactly one argument"},
		"unknown flag":     {[]string{"restore", good, "--nope"}, "--nope"},
		"wal-dir":          {[]string{"restore", good, "--wal-dir", "w"}, "--wal-dir"},
		"bump alone":       {[]string{"restore", good, "--bump-revision", "5"}, "--mark-compacted"},
		"mark alone":       {[]string{"restore", good, "--mark-compacted"}, "--mark-compacted"},
		"bump, no number":  {[]string{"restore", good, "--bump-revision", "-5", "--mark-compacted"}, "--bump-revision"},
		"bump, too much":   {[]string{"restore", good, "--bump-revision", "9223372036854775800", "--mark-compacted"}, "--bump-revision"},
		"not in the list":  {[]string{"restore", good, "--name", "other"}, "\"other\""},
		"other peer URLs":  {[]string{"restore", good, "--initial-advertise-peer-urls", "http://x:1"}, "http://x:1"},
		"malformed list":   {[]string{"restore", good, "--initial-cluster", "x"}, "--initial-cluster"},
		"directory in use": {[]string{"restore", good, "--data-dir", "full"}, "not empty"},
		"directory a file": {[]string{"restore", good, "--data-dir", "full/file"}, "full/file"},
		"below a file":     {[]string{"restore", good, "--data-dir", "full/file/below"}, "full/file/below"},
		"wrong hash":       {[]string{"restore", damaged}, "expected sha256"},
		"authentication":   {[]string{"restore", guarded}, "authentication enabled"},
		"a running etcd's": {[]string{"restore", database, "--skip-hash-check"}, "in use"},
		"missing":          {[]string{"restore", "nowhere.db"}, "nowhere.db"},
		"status, missing":  {[]string{"status", "nowhere.db"}, "nowhere.db"},
		"status, damaged":  {[]string{"status", damaged}, "expected sha256"},
		"status, format":   {[]string{"status", good, "-w", "table"}, "table"},
	} {
		for _, program := range []string{"holdfast", "consensus-node"} {
			t.Run(program+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				require.NoError(t, os.Mkdir(filepath.Join(dir, "full"), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(dir, "full", "file"), nil, 0o600))
				before := contents(t, dir)
				r := run(t, dir, program, append([]string{"snapshot"}, c.args...)...)
				require.Equal(t, 1, r.code, r.stderr)
				var lines []string // those of the log are no error
				for line := range strings.Lines(r.stderr) {
					if !strings.HasPrefix(line, "{") {
						lines = append(lines, line)
					}
				}
				require.Len(t, lines, 1)
				require.True(t, strings.HasPrefix(lines[0], program+": "), lines[0])
				require.Contains(t, lines[0], c.want)
				require.Equal(t, before, contents(t, dir), "something was written")
			})
		}
	}
	// Authentication that is switched off again leaves users that lie there as they are.
	must(t, "etcdctl", "--endpoints", endpoint, "--user", "root:secret", "auth", "disable")
	must(t, "holdfast", "snapshot", "restore", save(t, endpoint), "--data-dir", filepath.Join(t.TempDir(), "d"))
}

// What the error for a directory of etcd's says to do works, word for word.
func TestTheWayOutOfEtcd(t *testing.T) {
	source := framework.Etcd(t, framework.Options{})
	write(t, source, false)
	file := save(t, source.Endpoints()[0])
	source.Stop(t)
	dir := filepath.Join(source.Data, "s1")
	r := run(t, t.TempDir(), "holdfast", "--data-dir", dir)
	require.Equal(t, 1, r.code)
	const hint = "\"holdfast snapshot restore FILE --data-dir default.holdfast\""
	require.Contains(t, r.stderr, hint)
	place := t.TempDir()
	again := run(t, place, "holdfast", strings.Fields(strings.ReplaceAll(strings.Trim(hint, "\""), "FILE", file))[1:]...)
	require.Zero(t, again.code, again.stderr)
	require.FileExists(t, filepath.Join(place, "default.holdfast", "member", "snap", "db"))

	require.NoError(t, os.Rename(filepath.Join(place, "default.holdfast", "member"), filepath.Join(place, "default.holdfast", "member.restoring")))
	half := run(t, place, "holdfast")
	require.Equal(t, 1, half.code)
	require.Contains(t, half.stderr, "interrupted")
}
