package wal_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs/faultfs"
	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the random tests; 0 takes HOLDFAST_SEED, else a random one")
	roundsFlag = flag.Int("rounds", 80, "logs that TestCrash lives through")
)

// seed is printed where a test fails.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := *seedFlag
	if s == 0 {
		s, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if s == 0 {
		s = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run again with -seed %d", s)
		}
	})
	return s
}

// TestCrash lets logs live through power cuts, kills and failed syncs at any point: in appends, rotations, releases, in Create and in
// Open itself. After each, what Open returns must be the state after some call, none before the last that was acknowledged as
// durable: so every synced group is there, unsynced ones are there only as a prefix, and nothing is invented.
func TestCrash(t *testing.T) {
	s := seed(t)
	for round := range *roundsFlag {
		sim := newSim(t, s+uint64(round))
		for range 12 {
			sim.life()
		}
	}
}

// sim is one log, and beside it what it may hold.
type sim struct {
	t    *testing.T
	rng  *rand.Rand
	fs   *faultfs.FS
	opts wal.Options
	log  *wal.Log

	versions []model // after each call since the last durable one, which is the first
	started  bool    // Create was acknowledged
	term     uint64
	written  int // makes the data of all entries different
}

// model is the plainest thing that can say what a log holds.
type model struct {
	entries []modelEntry
	hard    [3]uint64
	mark    [2]uint64
}

type modelEntry struct {
	index, term uint64
	data        string
}

func (m *model) last() uint64 {
	if n := len(m.entries); n > 0 {
		return m.entries[n-1].index
	}
	return m.mark[0]
}

func (m model) append(entries []modelEntry, hard [3]uint64) model {
	if len(entries) > 0 {
		keep := entries[0].index - m.mark[0] - 1
		m.entries = append(append([]modelEntry(nil), m.entries[:keep]...), entries...)
	}
	if hard != [3]uint64{} {
		m.hard = hard
	}
	return m
}

func (m model) snapshot(index, term uint64) model {
	if index > m.last() || index > m.mark[0] && m.entries[index-m.mark[0]-1].term != term {
		m.entries = nil
	} else {
		m.entries = m.entries[index-m.mark[0]:]
	}
	m.mark = [2]uint64{index, term}
	return m
}

// String is what Open must return for it.
func (m model) String() string {
	hard := m.hard
	if hard[0] < m.mark[1] {
		hard[0], hard[1] = m.mark[1], 0
	}
	hard[2] = max(hard[2], m.mark[0])
	return fmt.Sprint(hard, m.mark, m.entries)
}

func stateString(s *wal.State) string {
	m := model{
		hard: [3]uint64{s.HardState.GetTerm(), s.HardState.GetVote(), s.HardState.GetCommit()},
		mark: [2]uint64{s.Snapshot.Index, s.Snapshot.Term},
	}
	for _, e := range s.Entries {
		m.entries = append(m.entries, modelEntry{e.GetIndex(), e.GetTerm(), string(e.GetData())})
	}
	return m.String()
}

func newSim(t *testing.T, seed uint64) *sim {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	return &sim{
		t: t, rng: rng, fs: faultfs.New(seed), versions: []model{{}}, term: 1,
		opts: wal.Options{SegmentBytes: 1024 + 512*rng.Int64N(8), Spares: rng.IntN(4) - 1, Salt: rng.Uint64},
	}
}

// life opens the log, works on it until something breaks, and breaks it.
func (s *sim) life() {
	s.fs.SetFault(nil)
	// Some lives end early, in Open; some much later, some not at all but by a kill.
	if s.rng.IntN(4) > 0 {
		s.fs.CutAfter(s.rng.IntN(1 << s.rng.IntN(9)))
	}
	if s.rng.IntN(4) == 0 {
		s.failAfter(s.rng.IntN(40))
	}
	err := s.open()
	for n := s.rng.IntN(120); err == nil && n > 0; n-- {
		err = s.step()
	}
	if err == nil && s.rng.IntN(3) == 0 {
		err = s.done(s.log.Close(), true)
	}
	switch {
	case err == nil && s.rng.IntN(2) == 0:
		s.fs.Kill()
	case err == nil || errors.Is(err, faultfs.ErrPowerCut):
		s.fs.Restart()
	case errors.Is(err, faultfs.ErrFault):
		s.fs.Kill()
	default:
		require.NoError(s.t, err)
	}
}

// failAfter makes one kind of call fail for good after n of its kind; a write may happen in part.
func (s *sim) failAfter(n int) {
	kinds := []faultfs.Kind{faultfs.KindSync, faultfs.KindSync, faultfs.KindWrite, faultfs.KindSyncDir, faultfs.KindRename}
	kind := kinds[s.rng.IntN(len(kinds))]
	s.fs.SetFault(func(op faultfs.Op) faultfs.Fault {
		if op.Kind != kind {
			return faultfs.Fault{}
		}
		if n--; n >= 0 {
			return faultfs.Fault{}
		}
		return faultfs.Fault{Err: faultfs.ErrFault, Short: s.rng.Int64N(op.Size + 1)}
	})
}

// open makes the log or compares it with what it may hold.
func (s *sim) open() (err error) {
	s.log = nil
	if !wal.Exists(s.fs, dir) {
		require.False(s.t, s.started, "the log is gone")
		s.log, err = wal.Create(s.fs, dir, wal.Metadata{ClusterID: 7}, s.opts)
		s.started = s.started || err == nil
		return err
	}
	var state *wal.State
	if s.log, state, err = wal.Open(s.fs, dir, s.opts); err != nil {
		return err
	}
	s.started = true
	got := stateString(state)
	for i, v := range slices.Backward(s.versions) {
		if v.String() == got {
			s.versions = s.versions[i : i+1] // all of it is durable now
			return nil
		}
	}
	require.Failf(s.t, "a state that never was", "got %s\nthe last durable state is %s", got, s.versions[0])
	return nil
}

// step makes one random call. A call that fails may have happened or not.
func (s *sim) step() error {
	now := s.versions[len(s.versions)-1]
	switch s.rng.IntN(13) {
	case 12:
		return s.log.Prepare()
	case 0:
		return s.done(s.log.Confirm(), true)
	case 1:
		return s.log.Release(now.mark[0])
	case 2:
		index, term := s.snapshot(&now)
		s.versions = append(s.versions, now.snapshot(index, term))
		return s.done(s.log.MarkSnapshot(wal.SnapshotMark{
			Index: index, Term: term, ConfState: &raftpb.ConfState{Voters: []uint64{1}},
		}), true)
	default:
		return s.append(&now)
	}
}

// snapshot mostly covers a part of the log, at times comes from a leader whose log differs or is longer.
func (s *sim) snapshot(m *model) (index, term uint64) {
	if s.rng.IntN(4) == 0 {
		s.term++
		return m.mark[0] + 1 + s.rng.Uint64N(20), s.term
	}
	if len(m.entries) == 0 {
		return m.mark[0], m.mark[1]
	}
	e := m.entries[s.rng.IntN(len(m.entries))]
	return e.index, e.term
}

func (s *sim) append(m *model) error {
	first := m.last() + 1
	if n := uint64(len(m.entries)); n > 0 && s.rng.IntN(6) == 0 {
		first -= s.rng.Uint64N(min(n, 5)) + 1 // a new leader replaces the end
		s.term++
	}
	var entries []modelEntry
	var message []*raftpb.Entry
	for i := range s.rng.Uint64N(4) {
		s.written++
		e := modelEntry{first + i, s.term, fmt.Sprintf("%d-%s", s.written, strings.Repeat("d", s.rng.IntN(1<<s.rng.IntN(11))))}
		entries, message = append(entries, e), append(message, entry(e.index, e.term, e.data))
	}
	var hard [3]uint64
	var hs *raftpb.HardState
	if s.rng.IntN(2) == 0 {
		hard = [3]uint64{s.term, s.rng.Uint64N(3) + 1, m.mark[0]}
		hs = hardState(hard[0], hard[1], hard[2])
	}
	sync := s.rng.IntN(3) > 0
	s.versions = append(s.versions, m.append(entries, hard))
	return s.done(s.log.Append(message, hs, sync), sync)
}

// done forgets the versions that an acknowledged sync has left behind.
func (s *sim) done(err error, sync bool) error {
	if err == nil && sync {
		s.versions = s.versions[len(s.versions)-1:]
	}
	return err
}
