package framework

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binVariable names the folder of the programs. Main sets it, unless it is set already: that compares other builds.
const binVariable = "TESTS_BIN"

// program says how a program is built when bin/ lacks it.
type program struct {
	module string // folder of the go.mod, below the repository
	pkg    string
	tool   bool // outside the workspace, with its own versions
}

// programs are all that the suites start.
func programs() map[string]program {
	return map[string]program{
		"holdfast":       {module: "deploy", pkg: "./standalone"},
		"proxy":          {module: "proxy", pkg: "./cmd/proxy"},
		"consensus-node": {module: "consensus-node", pkg: "./cmd/consensus-node"},
		"watch-hub":      {module: "watch-hub", pkg: "./cmd/watch-hub"},
		"lease-service":  {module: "lease-service", pkg: "./cmd/lease-service"},
		"etcd":           {module: "tools/etcd", pkg: "go.etcd.io/etcd/server/v3", tool: true},
		"etcdctl":        {module: "tools/etcdctl", pkg: "go.etcd.io/etcd/etcdctl/v3", tool: true},
		"etcdutl":        {module: "tools/etcdutl", pkg: "go.etcd.io/etcd/etcdutl/v3", tool: true},
		"nats-server":    {module: "tools/nats-server", pkg: "github.com/nats-io/nats-server/v2", tool: true},
	}
}

// SplitPrograms are what Split runs.
func SplitPrograms() []string {
	return []string{"nats-server", "consensus-node", "watch-hub", "lease-service", "proxy"}
}

// Main runs the tests of a package with the named programs at hand: the ones in bin/, which `make test` has built, and
// the missing ones built into a folder of its own. It gives the exit code. Use it as
//
//	func TestMain(m *testing.M) { os.Exit(framework.Main(m, "holdfast", "etcd")) }
func Main(m *testing.M, names ...string) int {
	bin, cleanup, err := collect(names)
	defer cleanup()
	if err == nil {
		err = os.Setenv(binVariable, bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "programs for the tests:", err)
		return 1
	}
	return m.Run()
}

// Root is the repository's folder.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for parent := filepath.Dir(dir); ; dir, parent = parent, filepath.Dir(parent) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		if parent == dir {
			return "", errors.New("no go.work above the working directory")
		}
	}
}

// Program is the path of a program that Main was asked for. The test fails if it could not be built.
func Program(tb testing.TB, name string) string {
	tb.Helper()
	bin := os.Getenv(binVariable)
	if bin == "" {
		tb.Fatal("framework: the package's TestMain must call framework.Main")
	}
	path := filepath.Join(bin, name)
	if failed, err := os.ReadFile(path + failedSuffix); err == nil {
		tb.Fatalf("%s", failed)
	}
	if _, err := os.Stat(path); err != nil {
		tb.Fatalf("framework: TestMain did not ask for the program: %v", err)
	}
	return path
}

// failedSuffix names the file that says why a program could not be built: the tests that need it fail with that, the
// others run.
const failedSuffix = ".failed"

// collect gives a folder that holds the named programs.
func collect(names []string) (bin string, cleanup func(), err error) {
	cleanup = func() {}
	if given := os.Getenv(binVariable); given != "" {
		return given, cleanup, nil
	}
	root, err := Root()
	if err != nil {
		return "", cleanup, err
	}
	built := filepath.Join(root, "bin")
	var missing []string
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(built, name)); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return built, cleanup, nil
	}
	dir, err := os.MkdirTemp("", "holdfast-test-bin-")
	if err != nil {
		return "", cleanup, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	for _, name := range names {
		if err := os.Symlink(filepath.Join(built, name), filepath.Join(dir, name)); err != nil {
			return "", cleanup, err
		}
	}
	for _, name := range missing {
		if failed := build(root, dir, name); failed != nil {
			if err := os.WriteFile(filepath.Join(dir, name+failedSuffix), []byte(failed.Error()), 0o600); err != nil {
				return "", cleanup, err
			}
		}
	}
	return dir, cleanup, nil
}

func build(root, dir, name string) error {
	p, ok := programs()[name]
	if !ok {
		return fmt.Errorf("nobody knows how to build %q", name)
	}
	out := filepath.Join(dir, name)
	if err := os.Remove(out); err != nil { // the dangling link
		return err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, p.pkg)
	cmd.Dir = filepath.Join(root, filepath.FromSlash(p.module))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if p.tool {
		cmd.Env = append(cmd.Env, "GOWORK=off", "GOFLAGS=-mod=readonly")
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return nil
}
