package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// etcdGates are the names of all feature gates of etcd 3.7.
const etcdGates = `
AllAlpha AllBeta CompactHashCheck FastLeaseKeepAlive InitialCorruptCheck LeaseCheckpoint LeaseCheckpointPersist
PriorityRequest SetMemberLocalAddr StopGRPCServiceOnDefrag TxnModeWriteWithSharedBuffer
`

// FeatureGates is the value of --feature-gates: Name=true|false,... of the gates that a service supports, all off by default.
type FeatureGates struct {
	supported []string
	on        map[string]bool
}

// NewFeatureGates makes the value for a service that supports the named gates.
func NewFeatureGates(supported ...string) *FeatureGates {
	return &FeatureGates{supported: supported, on: map[string]bool{}}
}

// Enabled tells whether a gate is open.
func (g *FeatureGates) Enabled(name string) bool { return g.on[name] }

// Set opens and closes the named gates. One that etcd has and the service has not is an error that says so.
func (g *FeatureGates) Set(text string) error {
	on := map[string]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		name, value, _ := strings.Cut(entry, "=")
		open, err := strconv.ParseBool(strings.TrimSpace(value))
		name = strings.TrimSpace(name)
		switch {
		case slices.Contains(g.supported, name) && err != nil:
			return fmt.Errorf("%q must be %s=true or %s=false", entry, name, name)
		case slices.Contains(g.supported, name):
			on[name] = open
		case slices.Contains(strings.Fields(etcdGates), name):
			return fmt.Errorf("%s is a feature gate of etcd that Holdfast does not support", name)
		default:
			return fmt.Errorf("%q is no feature gate: there are %s", name, strings.Join(g.supported, ", "))
		}
	}
	g.on = on
	return nil
}

// String is the gates that are open, as Set takes them.
func (g *FeatureGates) String() string {
	var entries []string
	for _, name := range g.supported {
		if g.on[name] {
			entries = append(entries, name+"=true")
		}
	}
	return strings.Join(entries, ",")
}

// Type names the value in the help.
func (g *FeatureGates) Type() string { return "name=true|false,..." }
