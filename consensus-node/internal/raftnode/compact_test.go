package raftnode

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
)

func TestCutTarget(t *testing.T) {
	var entries []*raftpb.Entry
	for i := uint64(1); i <= 100; i++ {
		entries = append(entries, &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: make([]byte, 1000-entryOverhead)})
	}
	for name, tc := range map[string]struct {
		count, catchUp, bytes, durable uint64
		kept                           uint64
		sending                        map[uint64]uint64
		want                           uint64
	}{
		"too few":                       {count: 50, catchUp: 60, bytes: 1 << 20, durable: 100, want: 0},
		"keeps what may be caught up":   {count: 50, catchUp: 20, bytes: 1 << 20, durable: 100, want: 80},
		"not above the durable index":   {count: 50, catchUp: 20, bytes: 1 << 20, durable: 33, want: 33},
		"an image is under way":         {count: 50, catchUp: 20, bytes: 1 << 20, durable: 100, sending: map[uint64]uint64{2: 70}, want: 70},
		"an image is about to be":       {count: 50, catchUp: 20, bytes: 1 << 20, durable: 100, sending: map[uint64]uint64{2: 0}, want: 0},
		"the next image waits":          {count: 50, catchUp: 20, bytes: 1 << 20, durable: 100, sending: map[uint64]uint64{2: nothingHeld}, want: 80},
		"too many bytes":                {count: 500, catchUp: 500, bytes: 60_000, durable: 100, want: 70},
		"too many bytes for the images": {count: 500, catchUp: 500, bytes: 60_000, durable: 100, sending: map[uint64]uint64{2: 3}, want: 70},
		"more than is kept":             {count: 500, catchUp: 500, kept: 30_000, bytes: 120_000, durable: 100, want: 85},
		"more, but images are on":       {count: 500, catchUp: 500, kept: 30_000, bytes: 120_000, durable: 100, sending: map[uint64]uint64{2: 3}, want: 0},
		"too many bytes, not durable":   {count: 500, catchUp: 500, bytes: 60_000, durable: 10, want: 10},
	} {
		t.Run(name, func(t *testing.T) {
			state := &testState{}
			state.durable.Index = tc.durable
			n, err := New(Config{
				ID: 1, Transport: &link{}, Log: &testLog{}, Applier: state, Entries: entries, Applied: 100,
				ConfState:     &raftpb.ConfState{Voters: []uint64{1, 2}},
				SnapshotCount: tc.count, CatchUpEntries: tc.catchUp, LogBytesKept: tc.kept, LogBytesMax: tc.bytes,
			})
			require.NoError(t, err)
			if tc.sending != nil {
				n.loop.sending = tc.sending
			}
			mark, _, bytes := n.storage.extent()
			require.Equal(t, tc.want, n.cutTarget(mark, bytes))
		})
	}
}
