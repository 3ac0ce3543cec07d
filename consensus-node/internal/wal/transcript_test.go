package wal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

const dir = "/data/log"

// TestTranscripts plays the files of testdata: what each command does to the log and what a dump shows of it.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata/transcripts", func(t *testing.T, file string) {
		p := player{fs: faultfs.New(1), opts: wal.Options{SegmentBytes: 1024, Salt: saltFrom(1)}}
		datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			return p.run(t, d)
		})
	})
}

type player struct {
	fs   *faultfs.FS
	opts wal.Options
	log  *wal.Log
}

func (p *player) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	var out strings.Builder
	var err error
	switch d.Cmd {
	case "create":
		p.log, err = wal.Create(p.fs, dir, wal.Metadata{ClusterID: 0xc, NodeID: 0xa, Incarnation: 1}, p.opts)
	case "open":
		var state *wal.State
		if p.log, state, err = wal.Open(p.fs, dir, p.opts); err == nil {
			out.WriteString(describe(state))
		}
	case "append":
		err = p.append(t, d)
	case "mark":
		var m wal.SnapshotMark
		d.ScanArgs(t, "index", &m.Index)
		d.ScanArgs(t, "term", &m.Term)
		m.ConfState = &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
		err = p.log.MarkSnapshot(m)
	case "release":
		var index uint64
		d.ScanArgs(t, "index", &index)
		err = p.log.Release(index)
	case "confirm":
		err = p.log.Confirm()
	case "prepare":
		err = p.log.Prepare()
	case "close":
		err = p.log.Close()
	case "kill":
		p.fs.Kill()
	case "power-cut":
		p.fs.Restart()
	case "fail":
		kind := faultfs.Kind(d.CmdArgs[0].Key)
		p.fs.SetFault(func(op faultfs.Op) faultfs.Fault {
			if op.Kind != kind {
				return faultfs.Fault{}
			}
			return faultfs.Fault{Err: faultfs.ErrFault, Short: op.Size / 2}
		})
	case "heal":
		p.fs.SetFault(nil)
		p.fs.SetCapacity(-1)
	case "full-disk":
		p.fs.SetCapacity(0)
	case "flip":
		var seq, off int
		d.ScanArgs(t, "segment", &seq)
		d.ScanArgs(t, "off", &off)
		err = p.fs.Flip(segmentPath(uint64(seq)), int64(off), 0)
	case "rm":
		err = errors.Join(p.fs.Remove(filepath.Join(dir, d.CmdArgs[0].Key)), p.fs.SyncDir(dir))
	case "ls":
		names, lsErr := p.fs.List(dir)
		err = lsErr
		for _, name := range names {
			fmt.Fprintf(&out, "%s %d\n", name, len(p.fs.Content(filepath.Join(dir, name))))
		}
	case "dump":
		err = wal.Dump(p.fs, dir, func(r wal.Record) error {
			out.WriteString(describeRecord(r))
			return nil
		})
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	if err != nil {
		fmt.Fprintf(&out, "error: %v\n", err)
	}
	if out.Len() == 0 {
		return "ok\n"
	}
	return out.String()
}

// append understands from=, to=, term=, size= (of the data), commit=, vote=, and nosync.
func (p *player) append(t *testing.T, d *datadriven.TestData) error {
	t.Helper()
	var from, to, term, commit, vote uint64
	size := 4
	d.MaybeScanArgs(t, "from", &from)
	to = from
	d.MaybeScanArgs(t, "to", &to)
	d.MaybeScanArgs(t, "term", &term)
	d.MaybeScanArgs(t, "commit", &commit)
	d.MaybeScanArgs(t, "vote", &vote)
	d.MaybeScanArgs(t, "size", &size)
	var entries []*raftpb.Entry
	for i := from; i <= to && from > 0; i++ {
		entries = append(entries, entry(i, term, strings.Repeat("x", size)))
	}
	var hs *raftpb.HardState
	if d.HasArg("commit") || d.HasArg("vote") {
		hs = hardState(term, vote, commit)
	}
	return p.log.Append(entries, hs, !d.HasArg("nosync"))
}

func segmentPath(seq uint64) string { return filepath.Join(dir, fmt.Sprintf("%016x.log", seq)) }

func entry(index, term uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Index: &index, Term: &term, Data: []byte(data)}
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

// saltFrom counts, so that a transcript is the same each time.
func saltFrom(n uint64) func() uint64 {
	return func() uint64 { n++; return n * 0x9e3779b97f4a7c15 }
}

func describe(s *wal.State) string {
	var b strings.Builder
	fmt.Fprintf(&b, "hard state: term %d, vote %d, commit %d\n", s.HardState.GetTerm(), s.HardState.GetVote(), s.HardState.GetCommit())
	fmt.Fprintf(&b, "snapshot: index %d, term %d, voters %v\n", s.Snapshot.Index, s.Snapshot.Term, s.Snapshot.ConfState.GetVoters())
	b.WriteString("entries (index/term):")
	for _, e := range s.Entries {
		fmt.Fprintf(&b, " %d/%d", e.GetIndex(), e.GetTerm())
	}
	b.WriteString("\n")
	return b.String()
}

func describeRecord(r wal.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %5d %s durable=%d", filepath.Base(r.File)[13:], r.Offset, r.Kind, r.Durable)
	switch r.Kind {
	case wal.RecordEntry:
		fmt.Fprintf(&b, " %d/%d %d bytes", r.Entry.GetIndex(), r.Entry.GetTerm(), len(r.Entry.GetData()))
	case wal.RecordHardState:
		fmt.Fprintf(&b, " term %d vote %d commit %d", r.HardState.GetTerm(), r.HardState.GetVote(), r.HardState.GetCommit())
	case wal.RecordMark:
		fmt.Fprintf(&b, " index %d term %d reset %v", r.Mark.Index, r.Mark.Term, r.Reset)
	case wal.RecordSegment, wal.RecordBase, wal.RecordConfirm, wal.RecordSeal, wal.RecordEnd:
	}
	b.WriteString("\n")
	return b.String()
}

// TestOpenErrors has the errors that callers tell apart.
func TestOpenErrors(t *testing.T) {
	fsys := faultfs.New(1)
	require.False(t, wal.Exists(fsys, dir))
	_, _, err := wal.Open(fsys, dir, wal.Options{})
	require.ErrorIs(t, err, fs.ErrNotExist)

	log, err := wal.Create(fsys, dir, wal.Metadata{}, wal.Options{SegmentBytes: 4096})
	require.NoError(t, err)
	require.True(t, wal.Exists(fsys, dir))
	_, _, err = wal.Open(fsys, dir, wal.Options{})
	require.ErrorIs(t, err, vfs.ErrLocked)
	require.NoError(t, log.Close())
	require.ErrorIs(t, log.Close(), wal.ErrClosed)
	require.ErrorIs(t, log.Append(nil, nil, true), wal.ErrClosed)
	_, err = wal.Create(fsys, dir, wal.Metadata{}, wal.Options{})
	require.ErrorIs(t, err, fs.ErrExist)
}
