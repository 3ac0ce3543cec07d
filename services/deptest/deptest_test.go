package deptest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/deptest"
)

// module writes a module whose files import one path each.
func module(t *testing.T, imports map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for file, path := range imports {
		name := filepath.Join(root, file)
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		text := "package x\n\nimport _ \"" + path + "\"\n"
		if filepath.Base(file) == "go.mod" {
			text = "module nested\n"
		}
		require.NoError(t, os.WriteFile(name, []byte(text), 0o600))
	}
	return root
}

func TestBroken(t *testing.T) {
	root := module(t, map[string]string{
		"a/a.go":            "x.org/bus",
		"a/a_test.go":       "x.org/bus/deep",
		"b/b.go":            "x.org/bus",
		"b/in/in.go":        "x.org/bus/fine",
		"bb/bb.go":          "x.org/business",
		"c/c_windows.go":    "x.org/bus",
		"testdata/t.go":     "x.org/bus",
		"nested/go.mod":     "",
		"nested/n.go":       "x.org/bus",
		"core/core.go":      "time",
		"core/core_test.go": "time",
	})
	check := func(rule deptest.Rule, want ...string) {
		t.Helper()
		rule.Because = "why"
		got, err := deptest.Broken(root, rule)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	check(deptest.Rule{Import: "x.org/bus"},
		"a/a.go imports x.org/bus: why", "a/a_test.go imports x.org/bus/deep: why", "b/b.go imports x.org/bus: why",
		"b/in/in.go imports x.org/bus/fine: why", "c/c_windows.go imports x.org/bus: why")
	check(deptest.Rule{Import: "x.org/bus", Allowed: []string{"b"}, TestsMay: true},
		"a/a.go imports x.org/bus: why", "c/c_windows.go imports x.org/bus: why")
	check(deptest.Rule{Import: "x.org", Except: []string{"x.org/bus"}}, "bb/bb.go imports x.org/business: why")
	check(deptest.Rule{Import: "time", In: []string{"core"}, TestsMay: true}, "core/core.go imports time: why")
	check(deptest.Rule{Import: "time", In: []string{"a", "b"}})
}

func TestRulesThatCannotBeRight(t *testing.T) {
	root := module(t, map[string]string{"a/a.go": "fmt"})
	for _, rule := range []deptest.Rule{
		{Import: "fmt"},
		{Because: "why"},
		{Import: "fmt", Because: "why", Allowed: []string{"misspelt"}},
		{Import: "fmt", Because: "why", In: []string{"a/a.go"}},
	} {
		_, err := deptest.Broken(root, rule)
		require.Error(t, err, "%+v", rule)
	}
}
