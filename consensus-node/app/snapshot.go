package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"

	"github.com/spf13/pflag"

	"github.com/holdfastdb/holdfast/consensus-node/internal/restore"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/logging"
)

// Snapshot is the offline commands on snapshot files, "restore" and "status", with etcdutl's arguments and flags. The environment
// does not count, as with etcdutl: what is set there for a server is not meant for its snapshot. Errors are one line each.
func Snapshot(ctx context.Context, program string, args []string, stdout, stderr io.Writer) error {
	command := ""
	if len(args) > 0 {
		command = args[0]
	}
	switch command {
	case "restore":
		return restoreSnapshot(ctx, program, args[1:], stdout, stderr)
	case "status":
		return snapshotStatus(program, args[1:], stdout)
	}
	return failure.New(failure.Config, fmt.Sprintf("%q is no command on snapshots: \"restore\" and \"status\" are", command))
}

// parseFile parses the flags of a command that takes one file. It writes the help, where that was asked for, and tells that by an
// empty name.
func parseFile(flags *pflag.FlagSet, usage string, args []string, stdout io.Writer) (file string, err error) {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	err = flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err := fmt.Fprintf(stdout, "Usage: %s\n\n%s", usage, flags.FlagUsages())
		return "", err
	case err != nil:
		return "", failure.New(failure.Config, fmt.Sprintf("%s (see --help)", err))
	case flags.NArg() != 1:
		return "", failure.New(failure.Config, fmt.Sprintf("%s requires exactly one argument, the snapshot file (see --help)", flags.Name()))
	}
	return flags.Arg(0), nil
}

// restoreFlags are the flags of snapshot restore.
type restoreFlags struct {
	name, dataDir, walDir, cluster, token string
	peers                                 *config.URLs
	skipHash, markCompacted               bool
	bump, mapBytes                        uint64
}

func (r *restoreFlags) declare(f *pflag.FlagSet) {
	r.peers = config.NewURLs(config.Advertise, "http://localhost:2380")
	f.StringVar(&r.name, "name", defaultName, "human-readable name of this member")
	f.StringVar(&r.dataDir, "data-dir", "", "path to the data directory to make (default \"${name}.holdfast\")")
	f.StringVar(&r.walDir, "wal-dir", "", "not supported: the raft log lies in the data directory")
	f.StringVar(&r.cluster, "initial-cluster", defaultName+"=http://localhost:2380", "members of the new cluster, name=url,...")
	f.StringVar(&r.token, "initial-cluster-token", defaultToken, "name of the new cluster")
	f.Var(r.peers, "initial-advertise-peer-urls", "this member's peer URLs as the others know them")
	f.BoolVar(&r.skipHash, "skip-hash-check", false, "take a file without its hash, such as the database of a stopped member")
	f.Uint64Var(&r.bump, "bump-revision", 0, "how much to raise the latest revision, above all that clients may have seen")
	f.BoolVar(&r.markCompacted, "mark-compacted", false, "mark all up to the raised revision as compacted; required with --bump-revision")
	f.Uint64Var(&r.mapBytes, "initial-memory-map-size", 0, "address space in bytes to map for the new database (default: as needed)")
}

// plan checks the flags as etcdutl does, which checks them as a server that begins.
func (r *restoreFlags) plan(file string) (restore.Plan, error) {
	switch {
	case r.walDir != "":
		return restore.Plan{}, failure.New(failure.Config, "flag --wal-dir is an etcd flag that Holdfast does not support yet")
	case (r.bump > 0) != r.markCompacted:
		return restore.Plan{}, failure.New(failure.Config, "--mark-compacted is required with --bump-revision, and not allowed without")
	case r.bump > math.MaxInt64:
		return restore.Plan{}, failure.New(failure.Config, "--bump-revision is larger than any revision can be")
	case r.mapBytes > math.MaxInt64:
		return restore.Plan{}, failure.New(failure.Config, "--initial-memory-map-size is larger than any address space")
	}
	cfg := NewConfig()
	cfg.DeclareMember(config.NewSet(Program)) // the defaults of all that is not asked for here, and checked
	cfg.Name, cfg.DataDir, cfg.InitialCluster, cfg.InitialToken, cfg.AdvertisePeerURLs = r.name, r.dataDir, r.cluster, r.token, r.peers
	if err := cfg.Finish(); err != nil {
		return restore.Plan{}, err
	}
	members, err := cfg.firstMembers()
	if err != nil {
		return restore.Plan{}, err
	}
	self, err := cfg.self(members)
	if err != nil {
		return restore.Plan{}, err
	}
	return restore.Plan{
		Snapshot: file, Dir: cfg.DataDir, SkipHash: r.skipHash, Members: members, Self: self.ID,
		BumpRevision: r.bump, MapBytes: int(r.mapBytes),
	}, nil
}

func restoreSnapshot(ctx context.Context, program string, args []string, stdout, stderr io.Writer) error {
	flags, r := pflag.NewFlagSet("snapshot restore", pflag.ContinueOnError), restoreFlags{}
	r.declare(flags)
	file, err := parseFile(flags, program+" snapshot restore FILE --data-dir DIR [flags]", args, stdout)
	if err != nil || file == "" {
		return err
	}
	plan, err := r.plan(file)
	if err != nil {
		return err
	}
	logger := logging.New(stderr, slog.LevelInfo, "")
	logger.Info("restoring snapshot", "path", plan.Snapshot, "data_dir", plan.Dir)
	result, err := restore.Run(ctx, plan)
	if err != nil {
		return err
	}
	logger.Info("restored snapshot", "path", plan.Snapshot, "data_dir", plan.Dir,
		"cluster_id", fmt.Sprintf("%x", result.ClusterID), "member_id", fmt.Sprintf("%x", result.MemberID),
		"revision", result.Revision, "compact_revision", result.CompactRevision, "keys", result.Keys, "leases", result.Leases)
	return nil
}

func snapshotStatus(program string, args []string, stdout io.Writer) error {
	flags, format := pflag.NewFlagSet("snapshot status", pflag.ContinueOnError), ""
	flags.StringVarP(&format, "write-out", "w", "simple", "output format: simple, json or fields")
	file, err := parseFile(flags, program+" snapshot status FILE [flags]", args, stdout)
	if err != nil || file == "" {
		return err
	}
	write, ok := map[string]func(io.Writer, restore.Status) error{"simple": writeSimple, "json": writeJSON, "fields": writeFields}[format]
	if !ok {
		return failure.New(failure.Config, fmt.Sprintf("--write-out %q is not supported: simple, json and fields are", format))
	}
	status, err := restore.ReadStatus(file)
	if err != nil {
		return err
	}
	return write(stdout, status)
}

func writeSimple(w io.Writer, s restore.Status) error {
	_, err := fmt.Fprintf(w, "%x, %d, %d, %s, %s\n", s.Hash, s.Revision, s.TotalKey, roundedBytes(s.TotalSize), s.Version)
	return err
}

func writeJSON(w io.Writer, s restore.Status) error { return json.NewEncoder(w).Encode(s) }

func writeFields(w io.Writer, s restore.Status) error {
	_, err := fmt.Fprintf(w, "\"Hash\" : %d\n\"Revision\" : %d\n\"Keys\" : %d\n\"Size\" : %d\n\"Version\" : %s\n",
		s.Hash, s.Revision, s.TotalKey, s.TotalSize, s.Version)
	return err
}

// roundedBytes is a size as etcdutl prints it: powers of 1000, one decimal below ten.
func roundedBytes(size int64) string {
	const thousand, ten = 1000, 10
	value, unit := float64(size), 0
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= thousand && unit < len(units)-1 {
		value /= thousand
		unit++
	}
	value = math.Floor(value*ten+0.5) / ten //nolint:mnd // half up
	if unit > 0 && value < ten {
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}
