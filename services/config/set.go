package config

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/services/failure"
)

// The flags that every Set has.
const (
	flagConfigFile = "config-file"
	flagVersion    = "version"
	flagHelp       = "help"
)

// Set is the flags of one program. Declare them on its groups, call Parse once, then read the variables.
type Set struct {
	program string
	all     *pflag.FlagSet
	groups  []*group

	configFile    string
	help, version bool
}

// group is flags that stand together in the help.
type group struct {
	title string
	flags *pflag.FlagSet
}

// NewSet makes the set of a program; the name stands in the help.
func NewSet(program string) *Set {
	s := &Set{program: program, all: newFlagSet(program)}
	s.Group("General", func(f *pflag.FlagSet) {
		f.StringVar(&s.configFile, flagConfigFile, "",
			"YAML `file` to read instead of flags and environment variables; the keys are the flags' names")
		f.BoolVar(&s.version, flagVersion, false, "print the versions and exit")
		f.BoolVarP(&s.help, flagHelp, "h", false, "print this help and exit")
	})
	return s
}

func newFlagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	return f
}

// Group declares flags under a title of the help; groups keep the order of their declaration and sort their flags. It
// panics on a name that is taken.
func (s *Set) Group(title string, declare func(flags *pflag.FlagSet)) {
	g := &group{title: title, flags: newFlagSet(title)}
	declare(g.flags)
	s.groups = append(s.groups, g)
	s.all.AddFlagSet(g.flags)
}

// Source is where settings come from.
type Source struct {
	// Args are the arguments after the program's name (and command).
	Args []string
	// Env is the environment as "NAME=value".
	Env []string
	// ReadFile reads the configuration file.
	ReadFile func(name string) ([]byte, error)
}

// Process is the source of a real process: the given arguments, its environment, its files.
func Process(args []string) Source {
	return Source{Args: args, Env: os.Environ(), ReadFile: os.ReadFile}
}

// Outcome is what Parse found besides the values.
type Outcome struct {
	// Help and Version tell that only this was asked for; nothing else was parsed then.
	Help, Version bool
	// Warnings are for the log, one line each: settings that were ignored.
	Warnings []string
	// Given are the names of the flags that a flag, variable or file key set, sorted.
	Given []string
}

// Has tells whether the flag was set by a flag, variable or file key.
func (o Outcome) Has(flag string) bool { return slices.Contains(o.Given, flag) }

// setting is one value on its way to a flag; from says where it came from, in words for an error.
type setting struct {
	flag  *pflag.Flag
	value string
	from  string
}

// Parse fills the declared flags from the source. Its error is of kind failure.Config.
func (s *Set) Parse(src Source) (Outcome, error) {
	args, err := s.parseArgs(src.Args)
	if err != nil {
		return Outcome{}, err
	}
	for _, a := range args {
		switch {
		case a.flag.Name == flagHelp && a.value == "true":
			return Outcome{Help: true}, nil
		case a.flag.Name == flagVersion && a.value == "true":
			return Outcome{Version: true}, nil
		}
	}
	var out Outcome
	settings, err := s.gather(args, src, &out)
	if err != nil {
		return Outcome{}, err
	}
	for _, set := range settings {
		if err := set.flag.Value.Set(set.value); err != nil {
			return Outcome{}, bad("invalid value %q for %s: %s", set.value, set.from, flatten(err.Error()))
		}
		set.flag.Changed = true
		out.Given = append(out.Given, set.flag.Name)
	}
	slices.Sort(out.Given)
	out.Given = slices.Compact(out.Given)
	return out, nil
}

// gather decides which of the three sources count.
func (s *Set) gather(args []setting, src Source, out *Outcome) ([]setting, error) {
	vars := environment(src.Env)
	file := vars[EnvName(flagConfigFile)]
	for _, a := range args {
		if a.flag.Name == flagConfigFile {
			file = a.value
		}
	}
	if file != "" {
		for _, a := range args {
			if a.flag.Name != flagConfigFile {
				out.Warnings = append(out.Warnings, "--"+a.flag.Name+" is ignored because a configuration file is given")
			}
		}
		return s.fromFile(file, src.ReadFile)
	}
	fromEnv, err := s.fromEnv(vars, args, out)
	if err != nil {
		return nil, err
	}
	return append(fromEnv, args...), nil
}

// bad is the error for bad input.
func bad(format string, args ...any) error {
	return failure.New(failure.Config, fmt.Sprintf(format, args...))
}
