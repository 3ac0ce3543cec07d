package app

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/restore"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Config is what a consensus node is told. Flags have etcd's names and defaults where the thing is etcd's.
type Config struct {
	Name                string
	DataDir             string
	ListenPeerURLs      *config.URLs
	AdvertisePeerURLs   *config.URLs
	AdvertiseClientURLs *config.URLs
	InitialCluster      string
	InitialState        *config.Choice
	InitialToken        string
	HeartbeatMs         uint
	ElectionMs          uint
	SnapshotCount       uint64
	CatchUpEntries      uint64
	// SnapshotBytesPerSecond bounds what this member sends of images of its database, to members that lag; 0 is no bound.
	SnapshotBytesPerSecond uint64
	TxnOpsMax              uint
	RequestBytesMax        uint
	StrictReconfig         bool
	ForceNewCluster        bool
	Space                  SpaceConfig
	// FeedBufferBytes bounds the newest changes kept in memory for watch-hubs that fill a gap.
	FeedBufferBytes uint
	// Consistency is when the members' key spaces are compared.
	Consistency Consistency
	// logSegmentBytes is the size of the log's segments; 0 is the log's default. Tests do without 64 MiB of zeros for each node.
	logSegmentBytes int64
	// onSnapshot is called at each step of installing a received snapshot. Tests end the node there.
	onSnapshot func(step raftnode.SnapshotStep) error
	// Tests put another file system under the log, and hold back the database's commits; nil: neither.
	logFS     vfs.FS
	tuneStore func(*store.Options)
	// healthInterval is etcd's 5 s; tests do not wait that long.
	healthInterval time.Duration
	// joining is what a running cluster said that this member is to join; see Join.
	joining *joining
	// diskFree tells the free bytes of the disk; nil: the file system is asked.
	diskFree func() (int64, error)

	// What follows is declared by DeclareProcess, for a node that is a process of its own.

	ListenAdminURLs   *config.URLs
	ListenMetricsURLs *config.URLs
	NATSURL           string
	Profiles          bool // serve profiles on the metrics URLs
	OTLPEndpoint      string
	LogLevel          *config.LogLevel
	Metrics           *config.Choice
}

// Defaults that etcd has too.
const (
	defaultName       = "default"
	defaultPeerURL    = "http://localhost:2380"
	defaultClientURL  = "http://localhost:2379"
	defaultToken      = "etcd-cluster"
	defaultFeedBuffer = 32 << 20
	// defaultSnapshotRate is half of what a network of 1 Gbit/s carries, so that an image leaves as much to writes. The database of
	// etcd's default quota, 2 GiB, takes half a minute.
	defaultSnapshotRate = 64 << 20
	// snapshotRateLeast is the least rate: a slower image would look like one that stalls.
	snapshotRateLeast = 1 << 20

	healthIntervalDefault = 5 * time.Second
)

// NewConfig gives the defaults.
func NewConfig() *Config {
	return &Config{
		ListenPeerURLs:      config.NewURLs(config.Listen, defaultPeerURL),
		AdvertisePeerURLs:   config.NewURLs(config.Advertise, defaultPeerURL),
		AdvertiseClientURLs: config.NewURLs(config.Advertise, defaultClientURL),
		InitialState:        config.NewChoice("new", "existing"),
		Consistency:         newConsistency(),
		FeedBufferBytes:     defaultFeedBuffer,
		ListenAdminURLs:     config.NewURLs(config.Listen),
		ListenMetricsURLs:   config.NewURLs(config.Listen),
		Space:               newSpaceConfig(),
		LogLevel:            config.NewLogLevel(),
		Metrics:             config.NewChoice("basic", "extensive"),
	}
}

// DeclareMember declares the flags of a member of the cluster, which standalone has too.
func (c *Config) DeclareMember(set *config.Set) {
	set.Group("Member", func(f *pflag.FlagSet) {
		f.StringVar(&c.Name, "name", defaultName, "human-readable name of this member")
		f.StringVar(&c.DataDir, "data-dir", "", "path to the data directory (default \"${name}.holdfast\")")
		f.Var(c.ListenPeerURLs, "listen-peer-urls", "URLs to listen on for the other members and services")
		f.UintVar(&c.HeartbeatMs, "heartbeat-interval", 100, "time in milliseconds between heartbeats of the leader")
		f.UintVar(&c.ElectionMs, "election-timeout", 1000, "time in milliseconds without a leader until an election")
		f.Uint64Var(&c.SnapshotCount, "snapshot-count", 10_000, "applied entries after which the log is cut")
		f.Uint64Var(&c.CatchUpEntries, "snapshot-catchup-entries", 5_000, "entries kept behind for members that lag")
		f.Uint64Var(&c.SnapshotBytesPerSecond, "snapshot-send-bytes-per-second", defaultSnapshotRate,
			"most that this member sends of its database to members that lag, at least 1 MiB (0: no bound)")
		f.UintVar(&c.TxnOpsMax, "max-txn-ops", 128, "most operations in a transaction")
		f.UintVar(&c.RequestBytesMax, "max-request-bytes", 1_572_864, "largest write request in bytes")
	})
	set.Group("Clustering", func(f *pflag.FlagSet) {
		f.Var(c.AdvertisePeerURLs, "initial-advertise-peer-urls", "this member's peer URLs as the others know them")
		f.StringVar(&c.InitialCluster, "initial-cluster", "", "first members, name=url,... (default \"${name}=${initial-advertise-peer-urls}\")")
		f.Var(c.InitialState, "initial-cluster-state", "\"new\" to begin a cluster, \"existing\" to join one")
		f.StringVar(&c.InitialToken, "initial-cluster-token", defaultToken, "name of the cluster, so that two never mix")
		f.BoolVar(&c.StrictReconfig, "strict-reconfig-check", true, "refuse changes of the member list that put the quorum at risk")
		f.BoolVar(&c.ForceNewCluster, "force-new-cluster", false, "begin a cluster of this member alone from its data; the others are removed for good")
		f.Var(c.AdvertiseClientURLs, "advertise-client-urls", "client URLs to tell to clients")
	})
	c.Space.declare(set)
	set.Group("Feed", func(f *pflag.FlagSet) {
		f.UintVar(&c.FeedBufferBytes, "feed-buffer-bytes", c.FeedBufferBytes, "newest changes kept in memory for watch-hubs")
	})
	c.Consistency.declare(set)
}

// DeclareProcess declares the flags of a node that is a process of its own.
func (c *Config) DeclareProcess(set *config.Set) {
	set.Group("Services", func(f *pflag.FlagSet) {
		f.Var(c.ListenAdminURLs, "listen-admin-urls", "URLs that serve etcd's KV, Cluster and Maintenance for this one member")
		f.StringVar(&c.NATSURL, "nats-url", "", "NATS servers that carry the change feed, nats://host:port,... (none: direct streams only)")
	})
	set.Group("Observing", func(f *pflag.FlagSet) {
		f.Var(c.ListenMetricsURLs, "listen-metrics-urls", "URLs that serve /metrics and /health")
		f.StringVar(&c.OTLPEndpoint, "otlp-endpoint", "", "host:port that takes traces over OTLP/gRPC (none: off)")
		f.BoolVar(&c.Profiles, "enable-pprof", false, "serve the Go runtime's profiles at /debug/pprof/ of the metrics URLs")
		f.Var(c.LogLevel, "log-level", "debug, info, warn, error, panic or fatal")
		f.Var(c.Metrics, "metrics", "basic or extensive")
	})
}

// Finish fills in what depends on other flags and checks everything that can be checked without touching the disk.
func (c *Config) Finish() error {
	if c.Name == "" {
		return failure.New(failure.Config, "--name is empty: give this member a name")
	}
	if c.DataDir == "" {
		c.DataDir = c.Name + ".holdfast"
	}
	if c.InitialCluster == "" {
		c.InitialCluster = c.ownEntry()
	}
	if rate := c.SnapshotBytesPerSecond; rate > 0 && rate < snapshotRateLeast {
		return failure.New(failure.Config, fmt.Sprintf(
			"--snapshot-send-bytes-per-second=%d is too little: give at least %d, or 0 for no bound", rate, snapshotRateLeast))
	}
	if err := config.CheckElection(c.HeartbeatMs, c.ElectionMs); err != nil {
		return err
	}
	if err := c.Consistency.check(); err != nil {
		return err
	}
	if err := c.Space.finish(); err != nil {
		return err
	}
	_, err := c.cluster()
	return err
}

func (c *Config) ownEntry() string {
	text := ""
	for _, url := range c.AdvertisePeerURLs.Strings() {
		if text != "" {
			text += ","
		}
		text += c.Name + "=" + url
	}
	return text
}

// cluster parses and checks the first members.
func (c *Config) cluster() (config.Cluster, error) {
	cluster, err := config.ParseCluster(c.InitialCluster)
	if err != nil {
		return nil, err
	}
	if c.InitialState.String() == "existing" {
		return cluster, cluster.CheckExisting(c.Name)
	}
	return cluster, cluster.CheckNew(c.Name, c.AdvertisePeerURLs)
}

func (c *Config) limits() edge.Limits {
	// etcd's rules: a request may take 5 s and two elections; a lease lives for at least one and a half elections.
	election := time.Duration(c.ElectionMs) * time.Millisecond
	const requestBase = 5 * time.Second
	lease := election * 3 / 2
	return edge.Limits{
		TxnOpsMax: int(c.TxnOpsMax), RequestBytesMax: int(c.RequestBytesMax),
		LeaseTTLMinS:   int64((lease + time.Second - 1) / time.Second),
		RequestTimeout: requestBase + 2*election,
		StrictReconfig: c.StrictReconfig, HealthInterval: cmp.Or(c.healthInterval, healthIntervalDefault),
	}
}

// logFiles is the file system that the log is in.
func (c *Config) logFiles() vfs.FS {
	if c.logFS != nil {
		return c.logFS
	}
	return vfs.OS{}
}

func (c *Config) logDir() string       { return filepath.Join(c.DataDir, "member", "log") }
func (c *Config) snapDir() string      { return filepath.Join(c.DataDir, "member", "snap") }
func (c *Config) databasePath() string { return filepath.Join(c.snapDir(), "db") }

// checkDataDir refuses a directory that cannot be used, before anything is written.
func (c *Config) checkDataDir() error {
	info, err := os.Stat(c.DataDir)
	switch {
	case os.IsNotExist(err):
		return nil
	case err != nil:
		return failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be read: mend its permissions or choose another --data-dir", c.DataDir), err)
	case !info.IsDir():
		return failure.New(failure.Config, fmt.Sprintf("data directory %s is a file: choose another --data-dir", c.DataDir))
	}
	if _, err := os.ReadDir(c.DataDir); err != nil {
		return failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be read: mend its permissions or choose another --data-dir", c.DataDir), err)
	}
	if restore.Half(c.DataDir) {
		return failure.New(failure.Config, fmt.Sprintf(
			"data directory %s holds what an interrupted \"holdfast snapshot restore\" left: remove it and restore again", c.DataDir))
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "member", "wal")); err == nil {
		return failure.New(failure.Config, fmt.Sprintf(
			"data directory %s was written by etcd: save a snapshot with \"etcdctl snapshot save FILE\" and make a directory of ours with "+
				"\"holdfast snapshot restore FILE --data-dir %s.holdfast\"", c.DataDir, c.Name))
	}
	return nil
}

// PeerURLs are the peer URLs of the first members, this node's own first: where a proxy beside this node finds the cluster.
func (c *Config) PeerURLs() ([]string, error) {
	cluster, err := c.cluster()
	if err != nil {
		return nil, err
	}
	own, others := c.AdvertisePeerURLs.Strings(), []string{}
	for name, urls := range cluster {
		if name == c.Name {
			continue
		}
		for _, url := range urls {
			others = append(others, url.String())
		}
	}
	slices.Sort(others)
	return append(own, others...), nil
}
