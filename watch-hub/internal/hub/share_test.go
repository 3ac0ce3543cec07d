package hub_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// However many watches of one range ask for the past, and wherever in it they begin, a node is asked for it once, and each gets
// what it asked for.
func TestAWalkThroughThePastIsShared(t *testing.T) {
	const head, watches, each = 10_000, 50, 100
	core := hub.New(hub.Config{ClusterID: clusterID, WindowBytes: 1, Limits: hub.DefaultLimits(), Follower: window.DefaultLimits()})
	message := func(from, to int64) *feedv1.Message {
		m := &feedv1.Message{Version: 1, ClusterId: clusterID, HeadRevision: to, PreviousRevision: from, LastRevision: to}
		for r := from + 1; r <= to; r++ {
			m.Revisions = append(m.Revisions, &feedv1.Revision{Revision: r, Events: []*feedv1.Event{{Key: []byte("k"), Kv: fmt.Append(nil, r)}}})
		}
		return m
	}
	core.Receive(message(0, head))
	queue := egress.New(egress.Limits{QueueBytes: 1 << 30, ResponseBytes: 1 << 30, ResponseEntries: 1 << 30})
	core.Open(1, queue)
	next := map[uint64]int64{}
	for i := range int64(watches) {
		id, start := uint64(i+1), 1+i*each
		next[id] = start
		core.Register(1, &watchv1.Registration{Id: id, Key: []byte("k"), NextRevision: start})
	}
	asked, joined := 0, map[uint64]bool{}
	var ask hub.StartHistory
	position := int64(0)
	for len(joined) < watches {
		for core.Work() {
		}
		effects := core.Take()
		for _, effect := range effects {
			if start, ok := effect.(hub.StartHistory); ok {
				asked++
				ask, position = start, start.After
			}
		}
		if position < ask.UpTo {
			to := min(position+77, ask.UpTo)
			core.History(ask.Pass, message(position, to))
			position = to
		}
		response, _ := queue.Take()
		for _, d := range response.GetDeliveries() {
			for _, id := range d.GetRegistrations() {
				for _, r := range d.GetRevisions() {
					if r.GetRevision() >= next[id] {
						require.Equal(t, next[id], r.GetRevision(), "watch %d", id)
						next[id]++
					}
				}
			}
		}
		for _, id := range response.GetJoined() {
			joined[id] = true
			require.EqualValues(t, head+1, next[id], "watch %d", id)
		}
	}
	require.Equal(t, 1, asked)
}
