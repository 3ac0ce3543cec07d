// Package config gives a service's flags the handling that etcd's operators know: flags, environment variables and a
// file, with etcd's names where the thing is etcd's.
//
// A service declares its flags on a Set, in groups; this package knows no service and no particular flag except
// --config-file, --version and --help, which every Set has. Parse then fills them in this order: flag, environment
// variable, default. The variable of a flag that etcd 3.7 has is ETCD_ and the name in capitals with underscores; of
// any other flag HOLDFAST_ and the same. With --config-file (or ETCD_CONFIG_FILE) the file alone counts and flags and
// variables are ignored with a warning, as in etcd.
//
// It promises that nothing is taken for something else and nothing of etcd's is dropped in silence: a flag, variable or
// file key that etcd 3.7 has and the Set has not is an error that says so. Every error is of kind failure.Config and
// its text is one line that says what is wrong and how to mend it. Parse writes nothing.
//
// The package also has the types that etcd's flags need: URL lists, the initial cluster, choices, log levels, and the
// checks across flags that etcd makes.
package config
