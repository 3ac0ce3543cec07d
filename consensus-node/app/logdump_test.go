package app

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
)

// dump runs "log dump" and gives its lines.
func dump(t *testing.T, dir string) (lines []dumped, err error) {
	t.Helper()
	var out strings.Builder
	err = DumpLog(config.Source{Args: []string{"--data-dir", dir}}, &out)
	for text := range strings.Lines(out.String()) {
		var line dumped
		require.NoError(t, json.Unmarshal([]byte(text), &line), text)
		lines = append(lines, line)
	}
	return lines, err
}

// lastSegment is the newest file of a log.
func lastSegment(t *testing.T, cfg *Config) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(cfg.logDir(), "*.log"))
	require.NoError(t, err)
	require.NotEmpty(t, names)
	return names[len(names)-1]
}

// A dump shows every entry of a stopped node as one line: membership changes with their member, writes with their request.
func TestDumpShowsEveryEntry(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, t.TempDir())
	node := runNode(t, cfg)
	read[pb.PutResponse](t, newCaller(t, node.direct).do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}))[0])

	_, err := dump(t, cfg.DataDir)
	require.ErrorContains(t, err, "is in use by a running node: stop it first")
	require.Equal(t, failure.ExitInput, failure.ExitCode(err))
	node.stop()

	lines, err := dump(t, cfg.DataDir)
	require.NoError(t, err)
	put := 0
	for i, line := range lines {
		require.EqualValues(t, i+1, line.Index)
		require.NotZero(t, line.Term)
		for _, request := range line.Requests {
			if strings.Contains(string(request), `"put":{"key":"aw==","value":"dg=="}`) {
				put++
			}
		}
	}
	require.Equal(t, 1, put)
	require.Equal(t, "EntryConfChange", lines[0].Type)
	require.Contains(t, string(lines[0].Requests[0]), `"type":"ConfChangeAddNode"`)
	require.Contains(t, string(lines[0].Requests[0]), `"name":"n1"`)

	again := runNode(t, cfg)
	again.stop()
	more, err := dump(t, cfg.DataDir)
	require.NoError(t, err)
	require.Equal(t, lines, more[:len(lines)], "a dump changes nothing")
}

// A torn tail ends the dump in silence, as it would at a start. Damage comes as an error after all that precedes it.
func TestDumpOfATornAndOfADamagedLog(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, t.TempDir())
	node := runNode(t, cfg)
	c := newCaller(t, node.direct)
	for range 3 {
		read[pb.PutResponse](t, c.do(call(t, consensusv1.Method_METHOD_PUT, &pb.PutRequest{Key: []byte("k"), Value: []byte("TORNHERE")}))[0])
	}
	node.stop()
	whole, err := dump(t, cfg.DataDir)
	require.NoError(t, err)
	segment := lastSegment(t, cfg)
	data, err := os.ReadFile(segment)
	require.NoError(t, err)

	// Nothing claims what comes after the last group: half a group there is a tear.
	torn := append([]byte(nil), data...)
	end := strings.LastIndex(string(data), "HWFg")
	require.Positive(t, end)
	next := (end + 48 + 7) &^ 7
	copy(torn[next:], torn[end:end+20])
	require.NoError(t, os.WriteFile(segment, torn, 0o600))
	lines, err := dump(t, cfg.DataDir)
	require.NoError(t, err)
	require.Equal(t, whole, lines)

	// A flip in what is claimed to be durable is damage.
	damaged := append([]byte(nil), data...)
	at := strings.LastIndex(string(data), "TORNHERE")
	require.Positive(t, at)
	damaged[at] ^= 1
	require.NoError(t, os.WriteFile(segment, damaged, 0o600))
	lines, err = dump(t, cfg.DataDir)
	require.Less(t, len(lines), len(whole))
	require.Equal(t, whole[:len(lines)], lines)
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
	for _, part := range []string{segment, "at byte ", "intact up to index", "choices: "} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "\n")
	// A start says the same and changes nothing.
	_, err = Open(testConfig(t, cfg.DataDir), discarding())
	require.Equal(t, failure.ExitStorage, failure.ExitCode(err))
	require.ErrorContains(t, err, segment)
	after, err := os.ReadFile(segment)
	require.NoError(t, err)
	require.Equal(t, damaged, after)
}

func TestDumpRefusesWhatIsNoLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := dump(t, dir)
	require.ErrorContains(t, err, "holds no raft log")
	names, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, names)
}
