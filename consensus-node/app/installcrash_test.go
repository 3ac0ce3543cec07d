package app

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// From any kill point of the installation of a snapshot, state is the old one or the snapshot's, never a mixture; and where log and
// database do not belong together, the node says so and does not start.
func TestAnInstallationIsRecoveredFrom(t *testing.T) {
	t.Parallel()
	source := testConfig(t, t.TempDir())
	fill := func(value string) (image []byte, mark wal.SnapshotMark) {
		node := runNode(t, source)
		c := newCaller(t, node.direct)
		for i := range 20 {
			request := &pb.PutRequest{Key: []byte{'a' + byte(i)}, Value: []byte(value)}
			read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, request))[0])
		}
		require.NoError(t, node.disk.store.Flush(t.Context()))
		opened, err := node.disk.store.Image(t.Context())
		require.NoError(t, err)
		var data bytes.Buffer
		_, err = opened.WriteTo(&data)
		require.NoError(t, err)
		mark = wal.SnapshotMark{Index: opened.Index, Term: opened.Term, ConfState: opened.ConfState}
		opened.Close()
		node.stop()
		return data.Bytes(), mark
	}
	fill("old")
	early := t.TempDir()
	require.NoError(t, os.CopyFS(early, os.DirFS(source.DataDir)))
	image, mark := fill("new")
	seen := history{}
	seen.read(t, vfs.OS{}, source.logDir())
	before := history{}
	before.read(t, vfs.OS{}, filepath.Join(early, "member", "log"))
	require.Greater(t, mark.Index, uint64(len(before)))

	received := func(t *testing.T, cfg *Config) {
		t.Helper()
		require.NoError(t, os.WriteFile(raftnode.IncomingImage(cfg.snapDir(), mark.Index), image, 0o600))
	}
	marked := func(t *testing.T, cfg *Config) {
		t.Helper()
		log, _, err := wal.Open(vfs.OS{}, cfg.logDir(), wal.Options{SegmentBytes: cfg.logSegmentBytes})
		require.NoError(t, err)
		require.NoError(t, log.MarkSnapshot(mark))
		require.NoError(t, log.Close())
	}
	renamed := func(t *testing.T, cfg *Config) {
		t.Helper()
		require.NoError(t, os.WriteFile(cfg.databasePath(), image, 0o600))
	}
	partial := func(t *testing.T, cfg *Config) {
		t.Helper()
		name := filepath.Join(cfg.snapDir(), "incoming-1"+raftnode.PartialSuffix)
		require.NoError(t, os.WriteFile(name, image[:len(image)/2], 0o600))
	}
	for name, c := range map[string]struct {
		leave []func(t *testing.T, cfg *Config)
		// index is what the database says then; 0 where the start is refused with the text says.
		index uint64
		says  string
	}{
		"partly received":                    {[]func(*testing.T, *Config){partial}, uint64(len(before)), ""},
		"received":                           {[]func(*testing.T, *Config){received}, uint64(len(before)), ""},
		"marked":                             {[]func(*testing.T, *Config){received, marked}, mark.Index, ""},
		"renamed":                            {[]func(*testing.T, *Config){marked, renamed}, mark.Index, ""},
		"an image that is lost":              {[]func(*testing.T, *Config){marked}, 0, "the database ends before the log begins"},
		"a database beyond the log, no mark": {[]func(*testing.T, *Config){renamed}, 0, "the database is ahead of the log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, t.TempDir())
			require.NoError(t, os.CopyFS(cfg.DataDir, os.DirFS(early)))
			for _, step := range c.leave {
				step(t, cfg)
			}
			opened, err := Open(cfg, discarding())
			if c.says != "" {
				require.ErrorContains(t, err, c.says)
				require.ErrorContains(t, err, "remove this member and add it again")
				require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
				return
			}
			require.NoError(t, err)
			text, index := nodeText(t, opened)
			require.Equal(t, c.index, index)
			require.Equal(t, replay(t, seen, index).text(t), text)
			require.NoError(t, opened.Close())
			node := runNode(t, cfg)
			read[pb.PutResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k")}))[0])
			names, err := filepath.Glob(filepath.Join(cfg.snapDir(), "incoming-*"))
			require.NoError(t, err)
			require.Empty(t, names)
		})
	}
}
