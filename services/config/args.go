package config

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"
)

// parseArgs reads the arguments without setting anything: whether they count at all is decided later.
func (s *Set) parseArgs(args []string) ([]setting, error) {
	var settings []setting
	err := s.all.ParseAll(s.doubleDashes(args), func(flag *pflag.Flag, value string) error {
		settings = append(settings, setting{flag, value, "--" + flag.Name})
		return nil
	})
	var unknown *pflag.NotExistError
	var missing *pflag.ValueRequiredError
	switch {
	case errors.Is(err, pflag.ErrHelp):
		return []setting{{s.all.Lookup(flagHelp), "true", ""}}, nil
	case errors.As(err, &unknown):
		name := unknown.GetSpecifiedName()
		if isEtcdFlag(name) {
			return nil, bad("flag --%s is an etcd flag that Holdfast does not support yet", name)
		}
		if shorts := unknown.GetSpecifiedShortnames(); shorts != "" {
			return nil, bad("unknown flag: -%s (see --help)", shorts)
		}
		return nil, bad("unknown flag: --%s (see --help)", name)
	case errors.As(err, &missing):
		return nil, bad("flag --%s needs a value (see --help)", missing.GetFlag().Name)
	case err != nil:
		return nil, bad("%s (see --help)", err)
	}
	if rest := s.all.Args(); len(rest) > 0 {
		return nil, bad("unexpected argument %q: flags start with --, and lists have no spaces (see --help)", rest[0])
	}
	return settings, nil
}

// doubleDashes turns etcd's other way to write a flag, -name, into --name. A value that begins with a dash stays.
func (s *Set) doubleDashes(args []string) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			arg = "-" + arg
		}
		out = append(out, arg)
		if s.takesNext(arg) && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// takesNext tells whether the argument is a flag whose value is the next argument.
func (s *Set) takesNext(arg string) bool {
	name, dashed := strings.CutPrefix(arg, "--")
	if !dashed || strings.Contains(name, "=") {
		return false
	}
	flag := s.all.Lookup(name)
	return flag != nil && flag.NoOptDefVal == ""
}
