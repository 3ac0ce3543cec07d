package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Cluster is the initial members of a cluster by name, each with its peer URLs.
type Cluster map[string][]url.URL

// ParseCluster reads --initial-cluster: name=url[,name=url...], where a name may come more than once. The error is of
// kind failure.Config.
func ParseCluster(text string) (Cluster, error) {
	cluster := Cluster{}
	if strings.TrimSpace(text) == "" {
		return nil, bad("--initial-cluster is empty: write name=http://host:port for each member, joined by commas")
	}
	for entry := range strings.SplitSeq(text, ",") {
		name, peer, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok || name == "" {
			return nil, bad("--initial-cluster has the entry %q: write name=http://host:port for each member", entry)
		}
		one, err := parseURL(peer)
		if err == nil {
			err = Advertise.check(one)
		}
		if err != nil {
			return nil, bad("--initial-cluster, member %s: %s", name, err)
		}
		cluster[name] = append(cluster[name], one)
	}
	for _, peers := range cluster {
		slices.SortFunc(peers, func(a, b url.URL) int { return strings.Compare(a.String(), b.String()) })
	}
	return cluster, nil
}

// String is the flag's text for the cluster, sorted by name.
func (c Cluster) String() string {
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		for _, peer := range c[name] {
			entries = append(entries, name+"="+peer.String())
		}
	}
	return strings.Join(entries, ",")
}

// Strings is the peer URLs of one member, sorted.
func (c Cluster) Strings(name string) []string {
	var urls []string
	for _, peer := range c[name] {
		urls = append(urls, peer.String())
	}
	return urls
}

// PeerURLs is those of all members but one, sorted.
func (c Cluster) PeerURLs(except string) []string {
	var urls []string
	for name := range c {
		if name != except {
			urls = append(urls, c.Strings(name)...)
		}
	}
	slices.Sort(urls)
	return urls
}

// CheckNew makes etcd's checks for a member that bootstraps: it is in the list, its advertised peer URLs are exactly the
// ones listed for it, and no URL belongs to two members. Host names are compared as written, not resolved. The error is
// of kind failure.Config.
func (c Cluster) CheckNew(name string, advertised *URLs) error {
	if err := c.CheckExisting(name); err != nil {
		return err
	}
	for _, peer := range c[name] {
		if !slices.Contains(advertised.Strings(), peer.String()) {
			return bad("--initial-cluster has %s=%s, which --initial-advertise-peer-urls=%s lacks: make the two the same",
				name, peer.String(), advertised)
		}
	}
	for _, peer := range advertised.List() {
		if !slices.Contains(c[name], peer) {
			return bad("--initial-advertise-peer-urls has %s, which --initial-cluster lacks for %s: make the two the same",
				peer.String(), name)
		}
	}
	return nil
}

// CheckExisting makes the checks for a member that joins a running cluster: it is in the list and no URL belongs to two
// members.
func (c Cluster) CheckExisting(name string) error {
	if _, ok := c[name]; !ok {
		return bad("--initial-cluster (%s) has no member named %q: add %s=http://host:port or set --name to one of its names",
			c, name, name)
	}
	owner := map[string]string{}
	for _, member := range slices.Sorted(maps.Keys(c)) {
		for _, peer := range c[member] {
			if other, ok := owner[peer.String()]; ok {
				return bad("--initial-cluster gives %s to %s and to %s: each member needs a URL of its own",
					peer.String(), other, member)
			}
			owner[peer.String()] = member
		}
	}
	return nil
}
