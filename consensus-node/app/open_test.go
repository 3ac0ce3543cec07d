package app

import (
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

func discarding() Dependencies {
	return Dependencies{Logger: slog.New(slog.DiscardHandler), Tracers: noop.NewTracerProvider()}
}

// A first start that is killed anywhere leaves a directory with which the next one begins the cluster.
func TestAKilledFirstStartBeginsAgain(t *testing.T) {
	t.Parallel()
	first := func(t *testing.T, cfg *Config) {
		t.Helper()
		members, err := cfg.firstMembers()
		require.NoError(t, err)
		require.NoError(t, createLog(cfg, members))
	}
	for name, leave := range map[string]func(t *testing.T, cfg *Config){
		"an empty log": first,
		"an empty directory for the log": func(t *testing.T, cfg *Config) {
			t.Helper()
			require.NoError(t, os.MkdirAll(cfg.logDir(), 0o700))
		},
		"first entries without a hard state": func(t *testing.T, cfg *Config) {
			t.Helper()
			first(t, cfg)
			log, _, err := wal.Open(vfs.OS{}, cfg.logDir(), wal.Options{SegmentBytes: cfg.logSegmentBytes})
			require.NoError(t, err)
			entry := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Type: raftpb.EntryConfChange.Enum(), Data: []byte("torn")}
			require.NoError(t, log.Append([]*raftpb.Entry{entry}, nil, true))
			require.NoError(t, log.Close())
		},
		"an opened database": func(t *testing.T, cfg *Config) {
			t.Helper()
			n, err := Open(cfg, discarding())
			require.NoError(t, err)
			require.NoError(t, n.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, t.TempDir())
			leave(t, cfg)
			node := runNode(t, cfg)
			read[pb.PutResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
		})
	}
}

// The log alone brings everything back, as long as it was never cut.
func TestALostDatabaseIsReplayed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := testConfig(t, dir)
	node := runNode(t, cfg)
	read[pb.PutResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
	node.stop()
	require.NoError(t, os.Remove(cfg.databasePath()))
	node = runNode(t, testConfig(t, dir))
	got := read[pb.RangeResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k")}))[0])
	require.Len(t, got.GetKvs(), 1)
}

// A directory of another member of the same cluster is refused: two processes of one member could vote twice.
func TestTheDirectoryOfAnotherMemberIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const cluster = "--initial-cluster=n1=http://127.0.0.1:1,n2=http://127.0.0.1:2"
	open := func(name, url string) error {
		n, err := Open(testConfig(t, dir, "--name="+name, cluster, "--initial-advertise-peer-urls="+url), discarding())
		if err == nil {
			err = n.Close()
		}
		return err
	}
	require.NoError(t, open("n1", "http://127.0.0.1:1"))
	err := open("n2", "http://127.0.0.1:2")
	require.ErrorContains(t, err, "or member")
	require.Equal(t, failure.ExitInput, failure.ExitCode(err))
	require.NotContains(t, err.Error(), "\n")
	require.NoError(t, open("n1", "http://127.0.0.1:1"))
}

// Exit codes are what supervisors act on.
func TestExitCodesOfFailures(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	require.Equal(t, failure.ExitRemoved, failure.ExitCode(node.errRemoved()))

	cfg := testConfig(t, t.TempDir())
	require.NoError(t, os.MkdirAll(cfg.snapDir(), 0o700))
	require.NoError(t, os.WriteFile(cfg.databasePath(), []byte("x"), 0o600))
	_, err := Open(cfg, discarding())
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err), "a database without its log")
}

// A data directory that cannot be made is bad input: exit code 1, not that of a failing disk.
func TestDirectoryThatCannotBeMade(t *testing.T) {
	t.Parallel()
	_, err := Open(testConfig(t, "/proc/holdfast-cannot-be-made"), discarding())
	require.ErrorContains(t, err, "choose another --data-dir")
	require.Equal(t, failure.ExitInput, failure.ExitCode(err))
}
