// Package deptest makes the walls between packages tests: a Rule bans an import with a reason, and Check fails with that
// reason when somebody adds it. Each module calls it with its own rules:
//
//	func TestImports(t *testing.T) {
//		deptest.Check(t, ".", deptest.Rule{
//			Import: "github.com/nats-io/nats.go", Allowed: []string{"bus"},
//			Because: "the bus hides which message system is behind it",
//		})
//	}
//
// It reads the import lines of all Go files of the module, those of tests and of other platforms too, and never builds
// anything. Directories named testdata or vendor, those that begin with a dot, and nested modules are not looked at.
package deptest

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Rule bans an import. Directories are relative to the module's root with forward slashes, "." is all of it, and each
// stands for what is below it too.
type Rule struct {
	// Import is the banned path, with everything below it.
	Import string
	// Except are paths at or below Import that the rule does not speak of.
	Except []string
	// In are the directories the rule holds in; none means everywhere.
	In []string
	// Allowed are the directories that may import it all the same.
	Allowed []string
	// TestsMay tells that _test.go files may import it anywhere.
	TestsMay bool
	// Because is the reason. It is what the person who breaks the rule reads.
	Because string
}

// Check fails the test for each import in the module at root that breaks a rule, and for rules that cannot be right: no
// reason, or a directory that is not there.
func Check(tb testing.TB, root string, rules ...Rule) {
	tb.Helper()
	broken, err := Broken(root, rules...)
	if err != nil {
		tb.Fatal(err)
	}
	for _, line := range broken {
		tb.Error(line)
	}
}

// Broken is what Check reports, one line each, in the order of the files.
func Broken(root string, rules ...Rule) ([]string, error) {
	for _, rule := range rules {
		if err := rule.check(root); err != nil {
			return nil, err
		}
	}
	var broken []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && skipped(path):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		lines, err := inFile(root, path, rules)
		broken = append(broken, lines...)
		return err
	})
	return broken, err
}

// skipped tells the directories that are not part of the module's own packages.
func skipped(dir string) bool {
	name := filepath.Base(dir)
	if name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func inFile(root, path string, rules []Rule) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return nil, fmt.Errorf("deptest: %w", err)
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return nil, fmt.Errorf("deptest: %w", err)
	}
	rel = filepath.ToSlash(rel)
	var broken []string
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("deptest: %s: %w", path, err)
		}
		for _, rule := range rules {
			if rule.bans(rel, imported) {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", rel, imported, rule.Because))
			}
		}
	}
	return broken, nil
}

// bans tells whether the rule forbids the file to import the path.
func (r Rule) bans(file, imported string) bool {
	switch {
	case !below(imported, r.Import):
		return false
	case slices.ContainsFunc(r.Except, func(path string) bool { return below(imported, path) }):
		return false
	case r.TestsMay && strings.HasSuffix(file, "_test.go"):
		return false
	case len(r.In) > 0 && !slices.ContainsFunc(r.In, func(dir string) bool { return below(file, dir) }):
		return false
	}
	return !slices.ContainsFunc(r.Allowed, func(dir string) bool { return below(file, dir) })
}

// below tells whether path is prefix or lies below it.
func below(path, prefix string) bool {
	return prefix == "." || path == prefix || strings.HasPrefix(path, prefix+"/")
}

// check finds rules that would never hold anybody back, for a misspelt directory say.
func (r Rule) check(root string) error {
	if r.Import == "" || r.Because == "" {
		return errors.New("deptest: a rule needs an import and a reason")
	}
	for _, dir := range slices.Concat(r.In, r.Allowed) {
		if info, err := os.Stat(filepath.Join(root, filepath.FromSlash(dir))); err != nil || !info.IsDir() {
			return fmt.Errorf("deptest: the rule for %s names the directory %s, which is not there", r.Import, dir)
		}
	}
	return nil
}
