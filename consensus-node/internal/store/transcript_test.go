package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/mvcc"
)

// transcript drives one Store at a time by commands. Nothing is committed
// unless a command says so.
type transcript struct {
	path    string
	s       *Store
	readers map[string]*Reader
	release func() // of a held commit
}

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, file string) {
		tr := &transcript{path: filepath.Join(t.TempDir(), "db"), readers: map[string]*Reader{}}
		tr.s = open(t, tr.path, testOptions())
		datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string { return tr.run(t, d) })
		for _, r := range tr.readers {
			r.Close()
		}
		require.NoError(t, tr.s.Close(t.Context()))
	})
}

func (tr *transcript) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "apply":
		return tr.apply(t, d)
	case "hold": // the next commit begins and cannot end
		tr.release = hold(t, tr.s)
		tr.s.mu.Lock()
		tr.s.urgent = tr.s.seq
		tr.s.wake()
		tr.s.mu.Unlock()
		require.Eventually(t, func() bool {
			tr.s.mu.Lock()
			defer tr.s.mu.Unlock()
			return tr.s.frozen != nil
		}, waitTime, waitTick)
	case "flush":
		if tr.release != nil {
			tr.release()
			tr.release = nil
		}
		require.NoError(t, tr.s.Flush(t.Context()))
	case "reopen":
		require.NoError(t, tr.s.Close(t.Context()))
		tr.s = open(t, tr.path, testOptions())
	case "reader":
		r, err := tr.s.Reader()
		require.NoError(t, err)
		tr.readers[d.CmdArgs[0].Key] = r
		return fmt.Sprintf("index %d generation %d", r.Index(), r.Generation())
	case "close":
		tr.readers[d.CmdArgs[0].Key].Close()
		delete(tr.readers, d.CmdArgs[0].Key)
	case "scan":
		return tr.scan(t, d)
	case "value":
		return tr.value(t, d)
	case "bucket":
		return tr.bucket(t, d.CmdArgs[0].Key)
	case "meta":
		return tr.meta(t)
	case "status":
		return fmt.Sprintf("durable %d generation %d", tr.s.Durable(), tr.s.Generation())
	default:
		d.Fatalf(t, "unknown command")
	}
	return ""
}

// apply reads one change per line: put REV KEY VALUE, tombstone REV KEY,
// drop REV [t], row BUCKET KEY VALUE, unrow BUCKET KEY, voters ID...
func (tr *transcript) apply(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var b Batch
	d.ScanArgs(t, "index", &b.Index)
	d.MaybeScanArgs(t, "term", &b.Term)
	for line := range strings.Lines(d.Input) {
		f := strings.Fields(line)
		switch f[0] {
		case "put":
			b.Writes = append(b.Writes, putAt(parseRev(t, f[1]), f[2], f[3]))
		case "tombstone":
			b.Writes = append(b.Writes, deleteAt(parseRev(t, f[1]), f[2]))
		case "drop":
			b.Drop = append(b.Drop, mvcc.Drop{Rev: parseRev(t, f[1]), Tombstone: len(f) > 2})
		case "row":
			b.Rows = append(b.Rows, Row{Bucket: f[1], Key: []byte(f[2]), Value: []byte(f[3])})
		case "unrow":
			b.Rows = append(b.Rows, Row{Bucket: f[1], Key: []byte(f[2]), Delete: true})
		case "voters":
			b.ConfState = &raftpb.ConfState{}
			for _, id := range f[1:] {
				b.ConfState.Voters = append(b.ConfState.Voters, uint64(id[0]-'0'))
			}
		default:
			d.Fatalf(t, "unknown change %q", line)
		}
	}
	if err := tr.s.Apply(b); err != nil {
		return err.Error()
	}
	return ""
}

func parseRev(t *testing.T, s string) (r mvcc.Revision) {
	t.Helper()
	_, err := fmt.Sscanf(s, "%d_%d", &r.Main, &r.Sub)
	require.NoError(t, err, s)
	return r
}

func (tr *transcript) scan(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	from, to := "0_0", "999_0"
	d.MaybeScanArgs(t, "from", &from)
	d.MaybeScanArgs(t, "to", &to)
	var lines []string
	err := tr.readers[d.CmdArgs[0].Key].Scan(parseRev(t, from), parseRev(t, to),
		func(r mvcc.Revision, tombstone bool, kv *mvccpb.KeyValue) error {
			line := fmt.Sprintf("%d_%d %s=%s", r.Main, r.Sub, kv.Key, kv.Value)
			if tombstone {
				line = fmt.Sprintf("%d_%d %s is deleted", r.Main, r.Sub, kv.Key)
			}
			lines = append(lines, line)
			return nil
		})
	require.NoError(t, err)
	return strings.Join(lines, "\n")
}

func (tr *transcript) value(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	kv, err := tr.readers[d.CmdArgs[0].Key].Value(parseRev(t, d.CmdArgs[1].Key))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s=%s", kv.Key, kv.Value)
}

func (tr *transcript) bucket(t *testing.T, name string) string {
	t.Helper()
	var lines []string
	require.NoError(t, tr.s.ForEach(name, func(k, v []byte) error {
		lines = append(lines, fmt.Sprintf("%s=%s", k, v))
		return nil
	}))
	return strings.Join(lines, "\n")
}

func (tr *transcript) meta(t *testing.T) string {
	t.Helper()
	m, err := tr.s.Meta()
	require.NoError(t, err)
	return fmt.Sprintf("index %d term %d voters %v", m.Index, m.Term, m.ConfState.GetVoters())
}
