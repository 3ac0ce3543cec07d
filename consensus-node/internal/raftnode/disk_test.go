package raftnode

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/wal"
)

// logContent is what a log holds; entries is never changed in place.
type logContent struct {
	mark    wal.SnapshotMark
	entries []*raftpb.Entry
	hard    *raftpb.HardState
}

func (c *logContent) last() uint64 { return c.mark.Index + uint64(len(c.entries)) }

// testLog is a Log in memory that forgets in a crash what was not synced, and checks what it is asked for as the real one does.
type testLog struct {
	mu       sync.Mutex
	now      logContent
	durable  logContent
	syncs    int
	appends  int
	confirms int
	fail     error
	gate     chan struct{} // if set, Append waits until it can receive
}

func (l *testLog) Append(entries []*raftpb.Entry, hs *raftpb.HardState, sync bool) error {
	l.mu.Lock()
	gate := l.gate
	l.mu.Unlock()
	if gate != nil {
		<-gate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fail != nil {
		return l.fail
	}
	l.appends++
	if len(entries) > 0 {
		first := entries[0].GetIndex()
		if first > l.now.last()+1 || first <= l.now.mark.Index {
			return fmt.Errorf("entry %d does not fit a log of (%d, %d]", first, l.now.mark.Index, l.now.last())
		}
		kept := slices.Clone(l.now.entries[:first-l.now.mark.Index-1])
		for i, e := range entries {
			if e.GetIndex() != first+uint64(i) {
				return fmt.Errorf("entry %d where %d belongs", e.GetIndex(), first+uint64(i))
			}
			kept = append(kept, e)
		}
		l.now.entries = kept
	}
	if !raft.IsEmptyHardState(hs) {
		l.now.hard = proto.Clone(hs).(*raftpb.HardState)
	}
	if sync {
		l.syncs++
		l.durable = l.now
	}
	return nil
}

func (l *testLog) MarkSnapshot(m wal.SnapshotMark) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Index < l.now.mark.Index {
		return fmt.Errorf("mark %d goes back from %d", m.Index, l.now.mark.Index)
	}
	if i := m.Index - l.now.mark.Index; m.Index <= l.now.last() && (i == 0 || l.now.entries[i-1].GetTerm() == m.Term) {
		l.now.entries = l.now.entries[i:]
	} else {
		l.now.entries = nil
	}
	l.now.mark = m
	l.durable = l.now
	return l.fail
}

func (l *testLog) Release(index uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index > l.now.mark.Index {
		return errors.New("release above the mark")
	}
	return nil
}

func (l *testLog) Confirm() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.confirms++
	l.durable = l.now
	return l.fail
}

func (l *testLog) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.gate = l.durable, nil
}

// counts returns how often the log was synced and confirmed, and where it begins.
func (l *testLog) counts() (syncs, confirms int, mark uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.syncs, l.confirms, l.durable.mark.Index
}

func (l *testLog) hold(gate chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = gate
}

// row is one applied entry that carried data.
type row struct {
	Index uint64
	Value string
}

// tables is the state and what goes with it in one transaction.
type tables struct {
	Index, Term uint64
	Conf        []byte
	Rows        []row
}

func (t tables) confState() *raftpb.ConfState {
	cs := &raftpb.ConfState{}
	if err := proto.Unmarshal(t.Conf, cs); err != nil {
		panic(err)
	}
	return cs
}

// testState is an Applier: the ordered list of all applied values, made durable each flushEvery entries.
type testState struct {
	node *Node

	mu         sync.Mutex
	now        tables
	durable    tables
	moved      chan struct{} // closed when now.Index moves
	flushEvery uint64
	installs   int
	fail       error
	failAt     error // of InstallSnapshot, before anything is done
	gate       chan struct{}
}

func (s *testState) Apply(entries []*raftpb.Entry) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
	for _, e := range entries {
		if err := s.apply(e); err != nil {
			return err
		}
	}
	return nil
}

func (s *testState) apply(e *raftpb.Entry) error {
	var conf []byte
	if e.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		if err := proto.Unmarshal(e.GetData(), cc); err != nil {
			return err
		}
		cs, err := s.node.ApplyConfChange(cc)
		if errors.Is(err, ErrStopped) {
			return err
		}
		if err == nil {
			if conf, err = proto.Marshal(cs); err != nil {
				return err
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	if e.GetIndex() != s.now.Index+1 {
		return fmt.Errorf("entry %d after entry %d", e.GetIndex(), s.now.Index)
	}
	s.now.Index, s.now.Term = e.GetIndex(), e.GetTerm()
	if conf != nil {
		s.now.Conf = conf
	}
	if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
		s.now.Rows = append(s.now.Rows, row{e.GetIndex(), string(e.GetData())})
	}
	if s.now.Index-s.durable.Index >= s.flushEvery {
		s.flush()
	}
	s.wake()
	return nil
}

func (s *testState) flush() {
	s.durable = s.now
	s.durable.Rows = slices.Clone(s.now.Rows)
}

func (s *testState) wake() {
	if s.moved != nil {
		close(s.moved)
		s.moved = nil
	}
}

func (s *testState) InstallSnapshot(_ context.Context, meta *raftpb.SnapshotMetadata, path string) error {
	if s.failAt != nil {
		return s.failAt
	}
	t, err := readImage(path)
	if err != nil {
		return err
	}
	if t.Index != meta.GetIndex() || t.Term != meta.GetTerm() {
		return fmt.Errorf("image of %d, message of %d", t.Index, meta.GetIndex())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = t
	s.flush()
	s.installs++
	s.wake()
	return os.Remove(path)
}

func readImage(path string) (t tables, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return t, err
	}
	return t, gob.NewDecoder(bytes.NewReader(b)).Decode(&t)
}

func (s *testState) Image(context.Context) (Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(s.durable); err != nil {
		return nil, err
	}
	d := s.durable
	return &testImage{
		meta: &raftpb.SnapshotMetadata{Index: &d.Index, Term: &d.Term, ConfState: d.confState()},
		data: b.Bytes(),
	}, nil
}

func (s *testState) Durable() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable.Index
}

func (s *testState) hold(gate chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = gate
}

func (s *testState) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = s.durable
	s.now.Rows = slices.Clone(s.durable.Rows)
}

// await waits until index is applied and returns what stands there.
func (s *testState) await(ctx context.Context, index uint64) (row, error) {
	for {
		s.mu.Lock()
		if s.now.Index >= index {
			i, found := slices.BinarySearchFunc(s.now.Rows, index, func(r row, index uint64) int {
				return int(int64(r.Index) - int64(index))
			})
			var r row
			if found {
				r = s.now.Rows[i]
			}
			s.mu.Unlock()
			return r, nil
		}
		if s.moved == nil {
			s.moved = make(chan struct{})
		}
		moved := s.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return row{}, ctx.Err()
		}
	}
}

func (s *testState) snapshot() tables {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.now
	t.Rows = slices.Clone(t.Rows)
	return t
}

type testImage struct {
	meta *raftpb.SnapshotMetadata
	data []byte
}

func (i *testImage) Metadata() *raftpb.SnapshotMetadata { return i.meta }
func (i *testImage) Size() int64                        { return int64(len(i.data)) }
func (i *testImage) Close() error                       { return nil }
func (i *testImage) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(i.data)
	return int64(n), err
}
