package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// How long the members of the cluster to join are asked, one of them at a time, and the pause before all are asked again.
const (
	joinPatience  = 10 * time.Second
	joinOne       = 2 * time.Second
	joinPause     = 200 * time.Millisecond
	addFirstUsage = "etcdctl member add %s --peer-urls=%s"
)

// joining is what a running cluster says of itself.
type joining struct {
	clusterID uint64
	members   []member.Member
	// leads tells that the leader said so.
	leads bool
	// self is this member's id; 0 in a data directory that knows it.
	self uint64
}

func (c *Config) existing() bool { return c.InitialState.String() == "existing" }

// Join asks the cluster of --initial-cluster who its members are, if this member is to join it (--initial-cluster-state existing) and has not
// heard from it yet. Call it before Open. It may take 10 s, for a member that answers, or for a leader that knows of this one.
// Errors are one line each, of kind Config or, if this member was removed, Removed.
func Join(ctx context.Context, cfg *Config, logger *slog.Logger) error {
	fresh := !wal.Exists(cfg.logFiles(), cfg.logDir())
	if !cfg.existing() || !fresh && !cfg.unheard() {
		return nil
	}
	cluster, err := cfg.cluster()
	if err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	if cfg.joining, err = joinWithin(bounded, cfg, cluster, fresh); err == nil {
		return nil
	}
	if !fresh && ctx.Err() == nil {
		// The others find this member by their list, and then it hears from them.
		logger.Warn("the cluster to join does not answer yet", "error", err)
		return nil
	}
	return err
}

// unheard tells whether the database holds nothing yet. What cannot be read is for Open to say.
func (c *Config) unheard() bool {
	meta, err := store.ReadMeta(c.databasePath())
	return errors.Is(err, fs.ErrNotExist) || err == nil && meta.Index == 0
}

// joinWithin asks until a member's answer names this one. The leader's word is final; another member may not have heard yet that this one
// was added.
func joinWithin(ctx context.Context, cfg *Config, cluster config.Cluster, fresh bool) (*joining, error) {
	var last error
	for {
		topology, err := askCluster(ctx, cluster.PeerURLs(cfg.Name))
		if err == nil {
			j := &joining{
				clusterID: topology.GetClusterId(), members: membersOf(topology), leads: topology.GetLeader() == topology.GetMemberId(),
			}
			if fresh {
				j.self, err = j.find(cfg.Name, cluster)
			}
			if err == nil || j.leads {
				return j, err
			}
		}
		if ctx.Err() == nil || last == nil { // what only ran out of time says less
			last = err
		}
		select {
		case <-time.After(joinPause):
		case <-ctx.Done():
			return nil, last
		}
	}
}

func membersOf(topology *consensusv1.Topology) []member.Member {
	members := make([]member.Member, 0, len(topology.GetMembers()))
	for _, m := range topology.GetMembers() {
		members = append(members, member.Member{
			ID: m.GetId(), Name: m.GetName(), ClientURLs: m.GetClientUrls(), PeerURLs: m.GetPeerUrls(), Learner: m.GetLearner(),
		})
	}
	return members
}

// askCluster asks each member for the topology. Of the answers the leader's counts, else one of the highest term.
func askCluster(ctx context.Context, peerURLs []string) (*consensusv1.Topology, error) {
	if len(peerURLs) == 0 {
		return nil, failure.New(failure.Config,
			"--initial-cluster-state existing needs the other members in --initial-cluster: write name=http://host:port for each of them")
	}
	var best *consensusv1.Topology
	var reason error
	for _, url := range peerURLs {
		topology, err := askMember(ctx, url)
		switch {
		case err != nil:
			reason = err
		case len(topology.GetMembers()) == 0: // it has not begun itself
		case topology.GetLeader() == topology.GetMemberId():
			return topology, nil
		case best == nil || topology.GetTerm() > best.GetTerm():
			best = topology
		}
	}
	if best == nil {
		return nil, failure.Wrap(failure.Config, fmt.Sprintf(
			"no member of the cluster to join answers at %s: start it, or mend --initial-cluster", strings.Join(peerURLs, ",")), reason)
	}
	return best, nil
}

func askMember(ctx context.Context, peerURL string) (topology *consensusv1.Topology, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinOne)
	defer cancel()
	err = ask([]string{peerURL}, func(client consensusv1.ConsensusClient) error {
		stream, err := client.Join(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&consensusv1.Announcement{}); err != nil {
			return err
		}
		topology, err = stream.Recv()
		return err
	})
	return topology, err
}

// find makes etcd's checks: the flags name as many members as the cluster has, under the same peer URLs. It gives this member's id.
func (j *joining) find(name string, cluster config.Cluster) (uint64, error) {
	own := cluster.Strings(name)
	var self *member.Member
	listed := map[string]string{} // the flags' members by their URLs
	for other := range cluster {
		listed[strings.Join(cluster.Strings(other), ",")] = other
	}
	matched := 0
	for i := range j.members {
		urls := slices.Sorted(slices.Values(j.members[i].PeerURLs))
		if slices.Equal(urls, own) {
			self = &j.members[i]
		}
		if _, ok := listed[strings.Join(urls, ",")]; ok {
			matched++
		}
	}
	switch {
	case self == nil:
		return 0, failure.New(failure.Config, fmt.Sprintf("the cluster has no member with the peer URLs %s: add it first, with \""+addFirstUsage+"\"",
			strings.Join(own, ","), name, strings.Join(own, ",")))
	case self.Started():
		return 0, failure.New(failure.Config, fmt.Sprintf(
			"member %x (%s) has run before, and its data is not in --data-dir: put it back, or remove the member with \"etcdctl member remove %x\" and add it again",
			self.ID, self.Name, self.ID))
	case matched != len(j.members) || len(cluster) != len(j.members):
		return 0, failure.New(failure.Config, fmt.Sprintf("--initial-cluster is not what the cluster consists of: set it to %s", j.flag(name, self.ID)))
	}
	return self.ID, nil
}

// flag is the --initial-cluster that fits, as etcdctl prints it.
func (j *joining) flag(name string, self uint64) string {
	names := map[uint64]string{self: name}
	var entries []string
	for _, m := range slices.SortedFunc(slices.Values(j.members), func(a, b member.Member) int { return cmp.Compare(a.ID, b.ID) }) {
		called := cmp.Or(names[m.ID], m.Name, fmt.Sprintf("%x", m.ID))
		for _, url := range m.PeerURLs {
			entries = append(entries, called+"="+url)
		}
	}
	return strings.Join(entries, ",")
}

// joinedIdentity is who a member that joins becomes.
func (c *Config) joinedIdentity() (clusterID, memberID uint64, err error) {
	if c.joining == nil || c.joining.self == 0 {
		return 0, 0, failure.New(failure.Config, "--initial-cluster-state existing with an empty --data-dir: the cluster to join was not asked")
	}
	return c.joining.clusterID, c.joining.self, nil
}

// beginJoined readies a member that has joined and applied nothing: it knows the members that its cluster told it, and is told by them if
// it was removed meanwhile.
func (d *disk) beginJoined(cfg *Config) error {
	if cfg.joining == nil {
		return nil
	}
	id := d.state.Metadata
	switch {
	case cfg.joining.clusterID != id.ClusterID:
		return failure.New(failure.Config, fmt.Sprintf(
			"data directory %s belongs to cluster %016x, and --initial-cluster to cluster %016x: choose another --data-dir, or mend --initial-cluster",
			cfg.DataDir, id.ClusterID, cfg.joining.clusterID))
	case cfg.joining.leads && !slices.ContainsFunc(cfg.joining.members, func(m member.Member) bool { return m.ID == id.NodeID }):
		return errRemoved(id.NodeID, cfg.DataDir)
	}
	d.first = cfg.joining.members
	return nil
}
