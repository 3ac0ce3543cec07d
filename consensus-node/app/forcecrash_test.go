package app

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// What the only voter has in its log is committed, whether the log says so or not: the commit index is written later than the entry that
// was acknowledged.
func TestForceNewClusterOfTheOnlyVoterKeepsWhatWasAcknowledged(t *testing.T) {
	t.Parallel()
	node := runNode(t, testConfig(t, t.TempDir()))
	c := newCaller(t, node.direct)
	for range 3 {
		read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
	}
	killed := testConfig(t, t.TempDir(), "--force-new-cluster")
	require.NoError(t, os.CopyFS(killed.logDir(), os.DirFS(node.cfg.logDir()))) // as a kill would leave it

	forced := runNode(t, killed)
	got := read[pb.RangeResponse](t, newCaller(t, forced.direct).do(call(t, consensusv1.Method_METHOD_RANGE, &pb.RangeRequest{Key: []byte("k")}))[0])
	require.Len(t, got.GetKvs(), 1)
	require.EqualValues(t, 3, got.GetKvs()[0].GetVersion())
}

// A member that was killed while it received an image: without the image it has nothing to force a cluster of, and its log
// stays as it is; with it the terms go on from that of the mark, which is written before the member's own.
func TestForceNewClusterAfterAnInstallationThatWasCutShort(t *testing.T) {
	t.Parallel()
	source := testConfig(t, t.TempDir())
	node := runNode(t, source)
	read[pb.PutResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
	require.NoError(t, node.disk.store.Flush(t.Context()))
	meta, err := node.disk.store.Meta()
	require.NoError(t, err)
	mark := wal.SnapshotMark{Index: meta.Index, Term: meta.Term, ConfState: meta.ConfState}
	node.stop()
	database, err := os.ReadFile(source.databasePath())
	require.NoError(t, err)

	for name, image := range map[string]bool{"without the image": false, "with it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, t.TempDir())
			first, err := cfg.firstMembers()
			require.NoError(t, err)
			require.NoError(t, createLog(cfg, first))
			log, _, err := wal.Open(vfs.OS{}, cfg.logDir(), wal.Options{SegmentBytes: cfg.logSegmentBytes})
			require.NoError(t, err)
			require.NoError(t, log.MarkSnapshot(mark))
			require.NoError(t, log.Close())
			require.NoError(t, os.MkdirAll(cfg.snapDir(), 0o700))
			if image {
				require.NoError(t, os.WriteFile(cfg.databasePath(), database, 0o600))
			}
			cfg.ForceNewCluster = true
			if !image {
				_, err := Open(cfg, discarding())
				require.ErrorContains(t, err, "the database ends before the log begins")
				require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
				log, state, err := wal.Open(vfs.OS{}, cfg.logDir(), wal.Options{SegmentBytes: cfg.logSegmentBytes})
				require.NoError(t, err)
				require.Empty(t, state.Entries)
				require.NoError(t, log.Close())
				return
			}
			forced := runNode(t, cfg)
			read[pb.PutResponse](t, newCaller(t, forced.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
		})
	}
}
