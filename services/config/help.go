package config

import (
	"fmt"
	"io"
	"strings"
)

// WriteHelp writes the usage line and all flags by group.
func (s *Set) WriteHelp(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [flags]\n       %s health [flags]   asks a running one for its health: exit code 0 or 1\n", s.program, s.program)
	for _, g := range s.groups {
		// The general flags are declared first and matter least.
		if g != s.groups[0] {
			fmt.Fprintf(&b, "\n%s:\n%s", g.title, g.flags.FlagUsagesWrapped(helpColumns))
		}
	}
	fmt.Fprintf(&b, "\n%s:\n%s", s.groups[0].title, s.groups[0].flags.FlagUsagesWrapped(helpColumns))
	b.WriteString("\nA flag that etcd has is also read from ETCD_NAME, any other from HOLDFAST_NAME (the flag's name in capitals,\n" +
		"with _ for -). A flag goes before its variable. With --config-file the file alone counts.\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// helpColumns is the width of the help text.
const helpColumns = 120
