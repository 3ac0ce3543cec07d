package version_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	etcd "go.etcd.io/etcd/api/v3/version"

	"github.com/holdfastdb/holdfast/services/version"
)

func TestTheAPIIsTheOneWeCompileAgainst(t *testing.T) {
	require.Equal(t, version.API[:4], etcd.Version[:4], "same minor version")
	require.Equal(t, version.ClusterAPI[:4], etcd.Version[:4])
}

func TestText(t *testing.T) {
	text := version.Text("proxy")
	require.Contains(t, text, "proxy Version: "+version.Holdfast+"\n")
	require.Contains(t, text, "etcd API Version: 3.7.0\n")
	require.NotEmpty(t, version.Commit())
}
