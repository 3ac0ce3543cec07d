package raftnode

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

func shortLog(cfg *Config) { cfg.SnapshotCount, cfg.CatchUpEntries = 10, 5 }

// aside stops a follower until the others have cut their logs above what it has.
func aside(t *testing.T, c *cluster) *member {
	t.Helper()
	c.mustPut("a")
	away := c.members[c.leader().id%3]
	require.NoError(t, away.crash())
	for i := range 60 {
		c.mustPut(fmt.Sprint("v", i))
		time.Sleep(20 * time.Millisecond)
	}
	_, _, mark := c.leader().log.counts()
	require.Greater(t, mark, away.log.durable.last())
	return away
}

func TestFollowerBehindTheLogCatchesUpBySnapshot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, shortLog)
		away := aside(t, c)
		away.start(nil)
		c.mustPut("z")
		require.Len(t, c.agree().Rows, 62)
		require.Equal(t, 1, away.state.installs)
		names, err := os.ReadDir(away.dir)
		require.NoError(t, err)
		require.Empty(t, names)

		// What it installed survives it.
		require.NoError(t, away.crash())
		away.start(nil)
		c.mustPut("zz")
		require.Len(t, c.agree().Rows, 63)
	})
}

func TestCrashBetweenMarkAndInstallIsMended(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, shortLog)
		away := aside(t, c)
		away.state.failAt = errors.New("power cut")
		away.start(nil)
		<-away.node.Stopped()
		require.ErrorIs(t, away.crash(), away.state.failAt)
		_, _, mark := away.log.counts()
		require.Greater(t, mark, away.state.durable.Index, "the log is marked, the database is not replaced")

		away.state.failAt = nil
		away.start(nil)
		c.mustPut("z")
		require.Len(t, c.agree().Rows, 62)
	})
}

func TestSnapshotNobodyNeedsIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := newCluster(t, 1, 3, nil)
		c.mustPut("a")
		c.agree()
		lead := c.leader()
		follower := c.members[lead.id%3]
		snap := func(index, term uint64) *raftpb.Message {
			return &raftpb.Message{
				Type: raftpb.MsgSnap.Enum(), From: &lead.id, To: &follower.id, Term: &term,
				Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
					Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
				}},
			}
		}
		term := lead.node.Status().Term
		require.ErrorIs(t, follower.node.ReceiveSnapshot(t.Context(), snap(1, term), "none"), ErrSnapshotIgnored)
		require.ErrorIs(t, follower.node.ReceiveSnapshot(t.Context(), snap(1000, term-1), "none"), ErrSnapshotIgnored)
		require.ErrorIs(t, follower.node.ReceiveSnapshot(t.Context(), snap(0, term), "none"), ErrSnapshotRefused)
		wrong := snap(1000, term)
		wrong.Type = raftpb.MsgApp.Enum()
		require.ErrorIs(t, follower.node.ReceiveSnapshot(t.Context(), wrong, "none"), ErrSnapshotRefused)
		c.mustPut("b")
	})
}

func TestStartRefusesWhatDoesNotBelongTogether(t *testing.T) {
	entries := func(from, to uint64) (es []*raftpb.Entry) {
		for i := from; i <= to; i++ {
			es = append(es, &raftpb.Entry{Index: &i, Term: new(uint64(2))})
		}
		return es
	}
	voters := &raftpb.ConfState{Voters: []uint64{1}}
	for name, tc := range map[string]struct {
		cfg  Config
		says string
	}{
		"database ahead": {
			Config{Applied: 9, Entries: entries(1, 8)},
			"the database is ahead of the log, which has no snapshot mark for it (database at index 9, log holds 1 to 8)",
		},
		"database behind": {
			Config{Applied: 4, Mark: wal.SnapshotMark{Index: 5, Term: 2}},
			"the database ends before the log begins",
		},
		"gap": {Config{Entries: append(entries(1, 3), entries(5, 6)...)}, "the log has entry 5 where 4 belongs"},
		"commit beyond": {
			Config{Entries: entries(1, 3), HardState: &raftpb.HardState{Commit: new(uint64(4))}},
			"entry 4 is committed and does not hold it",
		},
		"other history": {
			Config{Applied: 3, AppliedTerm: 1, Entries: entries(1, 3)},
			"the database's entry 3 is of term 1, the log's of term 2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := tc.cfg
			cfg.ID, cfg.ConfState = 1, voters
			cfg.Transport, cfg.Log, cfg.Applier = &link{}, &testLog{}, &testState{}
			_, err := New(cfg)
			var start *StartError
			require.ErrorAs(t, err, &start)
			require.ErrorContains(t, err, tc.says)
			require.ErrorContains(t, err, "add it again with an empty data directory")
		})
	}
}

func TestCommitAtStartIsAtLeastTheDatabases(t *testing.T) {
	term := uint64(2)
	var entries []*raftpb.Entry
	for i := uint64(1); i <= 5; i++ {
		entries = append(entries, &raftpb.Entry{Index: &i, Term: &term})
	}
	n, err := New(Config{
		ID: 1, Entries: entries, HardState: &raftpb.HardState{Term: &term, Commit: new(uint64(1))},
		Applied: 4, AppliedTerm: 2, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		Transport: &link{}, Log: &testLog{}, Applier: &testState{},
	})
	require.NoError(t, err)
	require.Equal(t, uint64(4), n.Status().Commit)
	require.Equal(t, uint64(2), n.Status().Term)
}
