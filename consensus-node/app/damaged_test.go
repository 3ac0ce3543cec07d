package app

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/failure"
)

// A member with a damaged database does not start. It says which file and page it is, in one line, and how to get out of that.
func TestADamagedDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := testConfig(t, dir)
	node := runNode(t, cfg)
	c := newCaller(t, node.direct)
	for range 20 {
		c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k"), Value: bytes.Repeat([]byte("v"), 3000)}))
	}
	node.stop()
	good, err := os.ReadFile(cfg.databasePath())
	require.NoError(t, err)
	pageBytes := os.Getpagesize()
	for name, damage := range map[string]func() (data []byte, says string){
		"cut short": func() ([]byte, string) { return good[:3*pageBytes], "page 3 at byte" },
		"both pages of metadata": func() ([]byte, string) {
			data := bytes.Clone(good)
			clear(data[:2*pageBytes])
			return data, "pages 0 and 1"
		},
		"every other page": func() ([]byte, string) {
			data := bytes.Clone(good)
			clear(data[2*pageBytes:])
			return data, ": page "
		},
		"a stored key-value": func() ([]byte, string) {
			// A key-value begins with its key; another byte before that makes it none.
			return bytes.ReplaceAll(good, []byte("\n\x01k"), []byte("\xff\x01k")), ": page "
		},
	} {
		data, says := damage()
		require.NoError(t, os.WriteFile(cfg.databasePath(), data, 0o600))
		_, err := Open(testConfig(t, dir), discarding())
		require.ErrorContains(t, err, cfg.databasePath(), name)
		require.ErrorContains(t, err, says, name)
		require.ErrorContains(t, err, "remove this member from the cluster, empty its data directory and add it again", name)
		require.NotContains(t, err.Error(), "\n", name)
		require.Equal(t, failure.ExitStorage, failure.ExitCode(err), name)
		after, err := os.ReadFile(cfg.databasePath())
		require.NoError(t, err)
		require.True(t, bytes.Equal(data, after), "%s: a refused file was written to", name)
	}
	require.NoError(t, os.WriteFile(cfg.databasePath(), good, 0o600))
	runNode(t, testConfig(t, dir))
}
