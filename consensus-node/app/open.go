package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// disk is an opened data directory.
type disk struct {
	log       *wal.Log
	state     *wal.State
	store     *store.Store
	meta      store.Meta
	bootstrap []raft.Peer
	// first are the members that this one knows of before it has applied anything.
	first []member.Member
}

// openDisk takes the data directory, making it if it is not there. Its errors are one line each: of kind Config for what the
// operator can mend by choosing otherwise, of kind Storage for damage.
//
// What the log does is told to m.
//
// A process may have been killed at any point of an earlier start: a log without a database, or with first entries but without a
// term, is a cluster that has not begun; see unborn.
func openDisk(cfg *Config, options store.Options, m *metrics) (*disk, error) {
	if err := cfg.checkDataDir(); err != nil {
		return nil, err
	}
	fresh := !wal.Exists(cfg.logFiles(), cfg.logDir())
	first, err := cfg.firstMembers()
	if err != nil {
		return nil, err
	}
	if fresh {
		if err := refuseLostLog(cfg); err != nil {
			return nil, err
		}
		if err := createLog(cfg, first); err != nil {
			return nil, err
		}
	}
	d := &disk{}
	d.log, d.state, err = wal.Open(cfg.logFiles(), cfg.logDir(), wal.Options{
		SegmentBytes: cfg.logSegmentBytes, ObserveSync: m.synced, ObserveWrite: m.written,
	})
	if err != nil {
		return nil, openError(cfg, "raft log", err)
	}
	debug.FreeOSMemory() // the log's segments, which were read whole, shall not add to the database's pages
	if err := d.openStore(cfg, options); err != nil {
		return nil, errors.Join(err, d.close())
	}
	err = d.begin(cfg, first)
	if err == nil && cfg.ForceNewCluster {
		err = d.forceNewCluster(cfg, options)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// begin checks whose the directory is, and readies a member that has not begun: one of a new cluster writes the first entries, one that
// joins gets them from the others.
func (d *disk) begin(cfg *Config, first []member.Member) error {
	if err := d.checkIdentity(cfg, first); err != nil {
		return err
	}
	unborn := d.unborn()
	if unborn {
		d.state.Entries = nil
	}
	if !d.isFirst(cfg, first) {
		return d.beginJoined(cfg)
	}
	var err error
	d.first = first
	if unborn {
		d.bootstrap, err = bootstrapPeers(cfg, first)
	}
	return err
}

// firstMembers computes the members of --initial-cluster with etcd's ids.
func (c *Config) firstMembers() ([]member.Member, error) {
	cluster, err := c.cluster()
	if err != nil {
		return nil, err
	}
	peers := map[string][]string{}
	for name, urls := range cluster {
		for _, url := range urls {
			peers[name] = append(peers[name], url.String())
		}
	}
	members, err := member.Initial(c.InitialToken, peers)
	if err != nil {
		return nil, failure.Wrap(failure.Config, "--initial-cluster does not make a cluster", err)
	}
	return members, nil
}

// self finds this node among the first members.
func (c *Config) self(first []member.Member) (member.Member, error) {
	for _, m := range first {
		if m.Name == c.Name {
			return m, nil
		}
	}
	return member.Member{}, failure.New(failure.Config, fmt.Sprintf(
		"--initial-cluster does not name this node, %q: add %s=URL to it or mend --name", c.Name, c.Name))
}

// refuseLostLog refuses a database without its log: votes and acknowledged writes may be gone with it.
func refuseLostLog(cfg *Config) error {
	_, err := os.Stat(cfg.databasePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failure.Wrap(failure.Config, "the database in "+cfg.DataDir+" cannot be read: mend its permissions", err)
	}
	return failure.New(failure.Storage, fmt.Sprintf(
		"%s holds a database but no raft log: put member/log back, or remove this member and add it again with an empty --data-dir", cfg.DataDir))
}

// identity is who a member with an empty data directory becomes.
func (c *Config) identity(first []member.Member) (clusterID, memberID uint64, err error) {
	if c.existing() {
		return c.joinedIdentity()
	}
	self, err := c.self(first)
	return member.ClusterID(first), self.ID, err
}

func createLog(cfg *Config, first []member.Member) error {
	clusterID, memberID, err := cfg.identity(first)
	if err != nil {
		return err
	}
	if err := (vfs.OS{}).MkdirAll(cfg.DataDir); err != nil {
		return failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be made: choose another --data-dir", cfg.DataDir), err)
	}
	log, err := wal.Create(cfg.logFiles(), cfg.logDir(), wal.Metadata{
		ClusterID: clusterID, NodeID: memberID, Incarnation: uint64(time.Now().UnixNano()),
	}, wal.Options{SegmentBytes: cfg.logSegmentBytes})
	if err != nil {
		return openError(cfg, "raft log", err)
	}
	if err := log.Close(); err != nil {
		return failure.Wrap(failure.Storage, "the raft log in "+cfg.DataDir+" could not be written", err)
	}
	return nil
}

func (d *disk) openStore(cfg *Config, options store.Options) error {
	const private = 0o700
	if err := os.MkdirAll(cfg.snapDir(), private); err != nil {
		return openError(cfg, "database", err)
	}
	if err := d.adoptImage(cfg); err != nil {
		return err
	}
	var err error
	if cfg.tuneStore != nil {
		cfg.tuneStore(&options)
	}
	if d.store, err = store.Open(cfg.databasePath(), options); err != nil {
		return openError(cfg, "database", err)
	}
	if d.meta, err = d.store.Meta(); err != nil {
		return openError(cfg, "database", err)
	}
	return nil
}

// adoptImage puts a received image in the database's place where the node ended between marking its log and installing it.
func (d *disk) adoptImage(cfg *Config) error {
	if mark := d.state.Snapshot.Index; mark > 0 {
		meta, err := store.ReadMeta(cfg.databasePath())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return openError(cfg, "database", err)
		}
		image := raftnode.IncomingImage(cfg.snapDir(), mark)
		if _, statErr := os.Stat(image); statErr == nil && meta.Index < mark {
			if err := errors.Join(os.Rename(image, cfg.databasePath()), syncDir(cfg.snapDir())); err != nil {
				return openError(cfg, "database", err)
			}
		}
	}
	if err := raftnode.RemoveIncoming(cfg.snapDir()); err != nil {
		return openError(cfg, "database", err)
	}
	return nil
}

// closeMax bounds the closing of the data directory: on a disk that hangs, or with a reader that never ends, the process ends
// all the same. What is lost then is in the log.
const closeMax = 5 * time.Second

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(filepath.Clean(dir))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *disk) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeMax) // the process's own context has ended
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		var err error
		if d.store != nil {
			err = d.store.Close(ctx)
		}
		closed <- errors.Join(err, d.log.Close())
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
	}
	select { // the store may have just given up, and the log may close
	case err := <-closed:
		return err
	case <-time.After(closeMax / 10):
		return errors.New("the data directory could not be closed in time")
	}
}

// unborn tells whether this member has never promised anything: then the cluster begins. The hard state is written behind the
// first entries and made durable with them, so entries without one were never acknowledged to anybody.
func (d *disk) unborn() bool {
	return d.state.Snapshot.Index == 0 && raft.IsEmptyHardState(d.state.HardState) && d.meta.Index == 0
}

// isFirst tells whether the flags make this directory's member one of the first of its cluster. The ids of members that joined later hold
// the time, so that no flags make them.
func (d *disk) isFirst(cfg *Config, first []member.Member) bool {
	self, err := cfg.self(first)
	return err == nil && d.state.Metadata.ClusterID == member.ClusterID(first) && d.state.Metadata.NodeID == self.ID
}

// checkIdentity refuses a directory that belongs to another cluster or member: its ids differ from what the flags make, and its
// member list does not give this name to its member either. (After members changed, the flags of the beginning make other
// ids, and that is fine.) A member that joins may have applied nothing yet of what says that it is one.
func (d *disk) checkIdentity(cfg *Config, first []member.Member) error {
	if d.isFirst(cfg, first) {
		return nil
	}
	listed, known := false, false
	err := d.store.ForEach(member.Bucket, func(key, value []byte) error {
		m, err := member.ParseRow(key, value)
		if err == nil && m.ID == d.state.Metadata.NodeID {
			listed, known = true, m.Name == "" || m.Name == cfg.Name
		}
		return err
	})
	if err == nil {
		err = d.store.ForEach(member.RemovedBucket, func(key, _ []byte) error {
			id, err := member.ParseRowKey(key)
			known = known || err == nil && id == d.state.Metadata.NodeID // that it was removed is said elsewhere
			return err
		})
	}
	if err != nil {
		return openError(cfg, "database", err)
	}
	if !known && (listed || !cfg.existing()) {
		return failure.New(failure.Config, fmt.Sprintf(
			"data directory %s belongs to another cluster (%x) or member: choose another --data-dir, or mend --name, --initial-cluster and --initial-cluster-token",
			cfg.DataDir, d.state.Metadata.ClusterID))
	}
	return nil
}

// bootstrapPeers makes the membership changes that begin a cluster.
func bootstrapPeers(cfg *Config, first []member.Member) ([]raft.Peer, error) {
	peers := make([]raft.Peer, len(first))
	for i, m := range first {
		context := &journalv1.MemberContext{
			Version: member.ContextVersion, MemberId: m.ID, Name: m.Name, PeerUrls: m.PeerURLs,
		}
		data, err := context.MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("encoding member %s of %s: %w", m.Name, cfg.InitialToken, err)
		}
		peers[i] = raft.Peer{ID: m.ID, Context: data}
	}
	return peers, nil
}

// rebuildHint is what an operator can do about a damaged database.
const rebuildHint = "choices: remove this member from the cluster, empty its data directory and add it again, so that it takes the data " +
	"from the others; or, if a majority is lost, restore a snapshot on all members"

// openError says in one line what is wrong with a part of the data directory and how to mend it.
func openError(cfg *Config, part string, err error) error {
	var damage *wal.DamageError
	switch {
	case errors.Is(err, vfs.ErrLocked), errors.Is(err, store.ErrInUse):
		return failure.New(failure.Config, fmt.Sprintf(
			"data directory %s is in use by another process: stop that process or choose another --data-dir", cfg.DataDir))
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.Config, fmt.Sprintf("the %s in %s cannot be opened: mend the permissions or choose another --data-dir", part, cfg.DataDir), err)
	case errors.Is(err, store.ErrForeign):
		return failure.New(failure.Config, fmt.Sprintf(
			"the database in %s was not written by Holdfast: save a snapshot of it and use \"holdfast snapshot restore\"", cfg.DataDir))
	case errors.Is(err, store.ErrCorrupt):
		return failure.Wrap(failure.Storage, "refusing to start", fmt.Errorf("%w; %s", err, rebuildHint))
	case errors.As(err, &damage):
		return failure.Wrap(failure.Storage, "the "+part+" is damaged", err)
	}
	return failure.Wrap(failure.Storage, fmt.Sprintf("the %s in %s cannot be opened", part, cfg.DataDir), err)
}

// logAttrs says who the node is, for its logger.
func (d *disk) logAttrs() []any {
	return []any{
		slog.String("member_id", fmt.Sprintf("%x", d.state.Metadata.NodeID)),
		slog.String("cluster_id", fmt.Sprintf("%x", d.state.Metadata.ClusterID)),
	}
}
