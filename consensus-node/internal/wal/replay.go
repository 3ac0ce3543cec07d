package wal

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// apply replays the records of one intact group. What does not fit although its checksum does was written wrongly, or by a
// later version: going on would guess.
func (s *scan) apply(seg *segment, h groupHeader, records []byte) error {
	if h.count == 0 {
		return s.show(Record{File: seg.path, Offset: h.off, Kind: RecordConfirm, Durable: h.durable})
	}
	off := h.off + groupHeaderSize
	for len(records) > 0 {
		n := recordExtent(records)
		payload := records[recordHeaderSize : recordHeaderSize+int(order.Uint32(records[4:]))]
		r := Record{File: seg.path, Offset: off, Durable: h.durable}
		if err := s.record(recordType(records[8]), payload, &r, h.off == headerSize); err != nil {
			return s.damage(seg.path, off, "a record that cannot be right: "+err.Error())
		}
		if err := s.show(r); err != nil {
			return err
		}
		records, off = records[n:], off+int64(n)
	}
	return nil
}

func (s *scan) record(t recordType, payload []byte, r *Record, opening bool) error {
	switch t {
	case recordBase:
		r.Kind = RecordBase
		return s.base(payload, opening)
	case recordEntry:
		r.Kind, r.Entry = RecordEntry, &raftpb.Entry{}
		if err := proto.Unmarshal(payload, r.Entry); err != nil {
			return err
		}
		return s.entry(r.Entry)
	case recordHardState:
		r.Kind, r.HardState = RecordHardState, &raftpb.HardState{}
		if err := proto.Unmarshal(payload, r.HardState); err != nil {
			return err
		}
		s.hard = hardState{r.HardState.GetTerm(), r.HardState.GetVote(), r.HardState.GetCommit()}
		return nil
	case recordMark, recordReset:
		r.Kind = RecordMark
		var m raftpb.SnapshotMetadata
		if err := proto.Unmarshal(payload, &m); err != nil {
			return err
		}
		r.Mark, r.Reset = SnapshotMark{m.GetIndex(), m.GetTerm(), m.GetConfState()}, t == recordReset
		return s.setMark(r.Mark, r.Reset)
	}
	return fmt.Errorf("type %d is unknown to this program", t)
}

// base starts the replay at the first segment that is left, and checks it at every other.
func (s *scan) base(payload []byte, opening bool) error {
	if !opening || len(payload) != 8 {
		return errors.New("a base outside an opening group")
	}
	last := order.Uint64(payload)
	if len(s.infos) > 1 && last != s.last {
		return fmt.Errorf("the segment begins after entry %d, and the one before it ends at %d", last, s.last)
	}
	s.last = last
	return nil
}

func (s *scan) entry(e *raftpb.Entry) error {
	index := e.GetIndex()
	if err := s.checkEntry(index); err != nil {
		return err
	}
	// Entries below the first one that is left were in released segments.
	if n := len(s.entries); n > 0 {
		first := s.entries[0].GetIndex()
		keep := max(index, first) - first
		clear(s.entries[keep:])
		s.entries = s.entries[:keep]
	}
	s.entries = append(s.entries, e)
	s.tail.entry(index, e.GetTerm())
	info := &s.infos[len(s.infos)-1]
	info.lastIndex = max(info.lastIndex, index)
	return nil
}

func (s *scan) setMark(m SnapshotMark, reset bool) error {
	if err := s.checkMark(m); err != nil {
		return err
	}
	if !reset && m.Index > s.last {
		return fmt.Errorf("a snapshot at %d, beyond the last entry %d, that does not replace the log", m.Index, s.last)
	}
	if reset {
		clear(s.entries)
		s.entries = s.entries[:0]
		capLastIndexes(s.infos, m.Index)
	}
	covered := 0
	for covered < len(s.entries) && s.entries[covered].GetIndex() <= m.Index {
		covered++
	}
	clear(s.entries[:covered]) // for the collector
	s.entries = s.entries[covered:]
	s.tail.setMark(m, reset)
	return nil
}

// capLastIndexes is what a reset does: entries above the mark count no more, so they hold no segment back.
func capLastIndexes(infos []segmentInfo, index uint64) {
	for i := range infos {
		infos[i].lastIndex = min(infos[i].lastIndex, index)
	}
}
