package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/node"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	"github.com/holdfastdb/holdfast/services/failure"
)

// Plan says what to make.
type Plan struct {
	// Snapshot is the file; Dir is the data directory, which does not exist or is empty.
	Snapshot, Dir string
	// SkipHash takes a file without looking at its hash, or without one.
	SkipHash bool
	// Members are those of the new cluster, in the order of their ids; Self is the one whose directory this is.
	Members []member.Member
	Self    uint64
	// BumpRevision is how much to raise the revision, to mark all up to it as compacted; 0: neither. At most math.MaxInt64.
	BumpRevision uint64
	// MapBytes is the least address space to map for the new database; 0: its need.
	MapBytes int
	// Log are the options of the new raft log.
	Log wal.Options
}

func (p Plan) bump() int64 { return int64(p.BumpRevision) }

// Result is what a restored directory holds.
type Result struct {
	ClusterID, MemberID       uint64
	Revision, CompactRevision int64
	Keys                      int64
	Leases                    int
}

// halfName is what the directory's content is called until it is whole.
const halfName = "member.restoring"

// Half tells whether dir holds what an interrupted restore left.
func Half(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, halfName))
	return err == nil
}

// Run carries out the plan. Errors are one line each: of kind Config for a snapshot or directory that cannot be used, of kind Storage
// where writing failed.
func Run(ctx context.Context, p Plan) (Result, error) {
	if err := checkPlan(p); err != nil {
		return Result{}, err
	}
	if err := checkDir(p.Dir); err != nil {
		return Result{}, err
	}
	if err := checkHash(p.Snapshot, p.SkipHash); err != nil {
		return Result{}, err
	}
	source, err := store.OpenForeign(p.Snapshot)
	if err != nil {
		return Result{}, unreadable(p.Snapshot, err)
	}
	defer func() { _ = source.Close() }() // it was only read
	if err := checkContent(p.Snapshot, source); err != nil {
		return Result{}, err
	}
	return build(ctx, p, source)
}

// checkDir refuses a directory that holds anything.
func checkDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be read: choose another --data-dir", dir), err)
	case Half(dir):
		return refuse("data directory %s holds what an interrupted restore left: remove %s", dir, filepath.Join(dir, halfName))
	case len(entries) > 0:
		return refuse("data directory %s is not empty: choose another --data-dir, or remove what is in it", dir)
	}
	return nil
}

// build writes the directory under another name and gives it its own when it is whole. What it made is gone after an error.
func build(ctx context.Context, p Plan, source *store.Foreign) (result Result, err error) {
	const private = 0o700
	_, statErr := os.Lstat(p.Dir)
	if err := (vfs.OS{}).MkdirAll(p.Dir); err != nil {
		return Result{}, failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be made: choose another --data-dir", p.Dir), err)
	}
	half := filepath.Join(p.Dir, halfName)
	if err := os.Mkdir(half, private); err != nil {
		return Result{}, failure.Wrap(failure.Config, fmt.Sprintf("data directory %s cannot be written: mend its permissions or choose another --data-dir", p.Dir), err)
	}
	defer func() {
		if err == nil {
			return
		}
		err = errors.Join(err, os.RemoveAll(half))
		if errors.Is(statErr, fs.ErrNotExist) {
			_ = os.Remove(p.Dir) // it was made here; if it is not empty now it stays
		}
	}()
	if result, err = fill(ctx, p, source, half); err != nil {
		return Result{}, err
	}
	if err := errors.Join((vfs.OS{}).SyncDir(half), os.Rename(half, filepath.Join(p.Dir, "member"))); err != nil {
		return Result{}, written(p, err)
	}
	return result, written(p, (vfs.OS{}).SyncDir(p.Dir))
}

func written(p Plan, err error) error {
	if err == nil {
		return nil
	}
	return failure.Wrap(failure.Storage, fmt.Sprintf("data directory %s could not be written", p.Dir), err)
}

// fill makes database and log in the directory.
func fill(ctx context.Context, p Plan, source *store.Foreign, half string) (Result, error) {
	snap := filepath.Join(half, "snap")
	if err := (vfs.OS{}).MkdirAll(snap); err != nil {
		return Result{}, written(p, err)
	}
	c := &conversion{plan: p}
	im, err := c.importOf(p.MapBytes)
	if err != nil {
		return Result{}, err
	}
	database := filepath.Join(snap, "db")
	if err := source.Import(database, im); err != nil {
		return Result{}, importError(p, err)
	}
	state, err := read(ctx, p, database)
	if err != nil {
		return Result{}, err
	}
	clusterID := member.ClusterID(p.Members)
	if err := createLog(p, filepath.Join(half, "log"), clusterID, c); err != nil {
		return Result{}, written(p, err)
	}
	return Result{
		ClusterID: clusterID, MemberID: p.Self, Revision: state.KV.Revision(), CompactRevision: max(0, state.KV.CompactRevision()),
		Keys: state.KV.Keys(), Leases: state.Leases.Len(),
	}, nil
}

// importError tells what the snapshot is to blame for from what the disk is.
func importError(p Plan, err error) error {
	if _, ours := errors.AsType[*failure.Error](err); ours {
		return err
	}
	_, path := errors.AsType[*fs.PathError](err)
	_, call := errors.AsType[*os.SyscallError](err)
	if path || call {
		return written(p, err)
	}
	return failure.Wrap(failure.Config, "snapshot "+p.Snapshot+" is damaged, save it again", err)
}

// read makes the state of the database as a node does at its start.
func read(ctx context.Context, p Plan, database string) (view *apply.View, err error) {
	s, err := store.Open(database, store.Options{})
	if err != nil {
		return nil, written(p, err)
	}
	defer func() { err = errors.Join(err, written(p, s.Close(ctx))) }()
	machine, err := node.RestoreMachine(node.Database(s))
	if err != nil {
		return nil, failure.Wrap(failure.Config, "snapshot "+p.Snapshot+" is damaged, save it again", err)
	}
	return machine.View(), nil
}

// createLog makes a log that begins behind the database.
func createLog(p Plan, dir string, clusterID uint64, c *conversion) error {
	log, err := wal.Create(vfs.OS{}, dir, wal.Metadata{
		ClusterID: clusterID, NodeID: p.Self, Incarnation: uint64(time.Now().UnixNano()),
	}, p.Log)
	if err != nil {
		return err
	}
	err = log.MarkSnapshot(wal.SnapshotMark{Index: c.index(), Term: firstTerm, ConfState: c.confState()})
	if err == nil {
		err = log.Confirm()
	}
	return errors.Join(err, log.Close())
}
