package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// environment indexes "NAME=value" strings; variables that are empty count as not set, as in etcd.
func environment(env []string) map[string]string {
	vars := map[string]string{}
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok && value != "" {
			vars[name] = value
		}
	}
	return vars
}

// fromEnv takes the variables of declared flags that args did not set, and judges the rest: what etcd has and the set
// has not is an error, what neither has is a warning.
func (s *Set) fromEnv(vars map[string]string, args []setting, out *Outcome) ([]setting, error) {
	names := make([]string, 0, len(vars))
	for name := range vars {
		if strings.HasPrefix(name, etcdPrefix) || strings.HasPrefix(name, oursPrefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var settings []setting
	for _, name := range names {
		flag := s.all.Lookup(flagName(name))
		switch {
		case flag != nil && EnvName(flag.Name) == name && !askedFor(flag.Name):
			if given(args, flag) {
				out.Warnings = append(out.Warnings, fmt.Sprintf("%s is ignored because --%s is given", name, flag.Name))
				continue
			}
			settings = append(settings, setting{flag, vars[name], "environment variable " + name})
		case strings.HasPrefix(name, etcdPrefix) && isEtcdFlag(flagName(name)) && flag == nil:
			return nil, bad("environment variable %s is an etcd setting that Holdfast does not support yet: unset it", name)
		default:
			out.Warnings = append(out.Warnings, fmt.Sprintf("environment variable %s is unknown and ignored", name))
		}
	}
	return settings, nil
}

func given(args []setting, flag *pflag.Flag) bool {
	return slices.ContainsFunc(args, func(a setting) bool { return a.flag == flag })
}

// askedFor tells the flags that only a person gives: images like to set ETCD_VERSION to a version.
func askedFor(name string) bool { return name == flagVersion || name == flagHelp }
