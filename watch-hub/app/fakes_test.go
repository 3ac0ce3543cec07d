package app_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
)

const clusterID = 0xc1

// world is a consensus tier with one history that several fake nodes show; the leader publishes it on the bus.
type world struct {
	mu      sync.Mutex
	changed chan struct{}
	history []*feedv1.Revision // of revision i+1
	last    map[string]int64
	compact int64
	leader  uint64
	bus     bus.Bus
	// drop says which bus messages are lost.
	drop      func(m *feedv1.Message) bool
	published int64
	announced map[string]*consensusv1.Announcement
	histories int
	// pad follows each value, to make it large.
	pad string
	// span is the span context of writes.
	span []byte
	// frozen nodes apply nothing beyond a revision.
	frozen map[uint64]int64
}

func newWorld(b bus.Bus) *world {
	return &world{
		changed: make(chan struct{}), last: map[string]int64{}, leader: 1, bus: b,
		announced: map[string]*consensusv1.Announcement{}, frozen: map[uint64]int64{},
	}
}

// do changes the world under its lock and wakes everybody.
func (w *world) do(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
	close(w.changed)
	w.changed = make(chan struct{})
}

// put makes a revision; the value of a key at revision r is "vr".
func (w *world) put(key string) int64 {
	var revision int64
	w.do(func() {
		revision = int64(len(w.history)) + 1
		w.history = append(w.history, &feedv1.Revision{Revision: revision, SpanContext: w.span, Events: []*feedv1.Event{{
			Key: []byte(key), Kv: fmt.Appendf(nil, "v%d%s", revision, w.pad), PreviousModRevision: w.last[key],
		}}})
		w.last[key] = revision
		w.publish()
	})
	return revision
}

// publish tells the bus what is new; the caller holds the lock.
func (w *world) publish() {
	head := int64(len(w.history))
	m := w.message(w.leader, w.published, head)
	w.published = head
	if w.bus == nil || (w.drop != nil && w.drop(m)) {
		return
	}
	_ = w.bus.PublishValue(fmt.Sprintf("holdfast.%016x.changes", clusterID), nil, m)
}

// beat publishes heartbeats until the context ends.
func (w *world) beat(ctx context.Context) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.mu.Lock()
			w.publish()
			w.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// message makes a message of (from, to]; the caller holds the lock.
func (w *world) message(publisher uint64, from, to int64) *feedv1.Message {
	return &feedv1.Message{
		Version: 1, ClusterId: clusterID, Publisher: publisher, PublisherRun: 1, HasLeader: w.leader != 0, Leader: w.leader,
		HeadRevision: w.head(publisher), CompactRevision: w.compact,
		PreviousRevision: from, LastRevision: to, Revisions: append([]*feedv1.Revision(nil), w.history[from:to]...),
	}
}

func (w *world) head(node uint64) int64 {
	if at, ok := w.frozen[node]; ok {
		return at
	}
	return int64(len(w.history))
}

func (w *world) announcement(name string) *consensusv1.Announcement {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.announced[name]
}

// node is one fake consensus node.
type node struct {
	consensusv1.UnimplementedConsensusServer
	world *world
	id    uint64
}

func address(id uint64) string { return fmt.Sprintf("n%d:2380", id) }

func (n *node) Join(stream consensusv1.Consensus_JoinServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	n.world.do(func() { n.world.announced[first.GetName()] = first })
	go func() {
		for {
			a, err := stream.Recv()
			if err != nil {
				return
			}
			n.world.do(func() { n.world.announced[a.GetName()] = a })
		}
	}()
	for {
		n.world.mu.Lock()
		changed := n.world.changed
		topology := &consensusv1.Topology{ClusterId: clusterID, MemberId: n.id, Leader: n.world.leader, Term: 2}
		for id := uint64(1); id <= 2; id++ {
			topology.Members = append(topology.Members, &consensusv1.Member{Id: id, PeerUrls: []string{"http://" + address(id)}})
		}
		n.world.mu.Unlock()
		if err := stream.Send(topology); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (n *node) Feed(_ *consensusv1.FeedRequest, stream consensusv1.Consensus_FeedServer) error {
	position := int64(-1)
	for {
		n.world.mu.Lock()
		changed, head := n.world.changed, n.world.head(n.id)
		if position < 0 {
			position = head
		}
		m := n.world.message(n.id, position, head)
		n.world.mu.Unlock()
		position = head
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (n *node) History(r *consensusv1.HistoryRequest, stream consensusv1.Consensus_HistoryServer) error {
	const perMessage = 3
	n.world.do(func() { n.world.histories++ })
	for position := r.GetAfterRevision(); position < r.GetUpToRevision(); {
		n.world.mu.Lock()
		head, compact, changed := n.world.head(n.id), n.world.compact, n.world.changed
		if position+1 < compact {
			n.world.mu.Unlock()
			return status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
		}
		if position >= head {
			n.world.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		to := min(position+perMessage, head, r.GetUpToRevision())
		m := n.world.message(n.id, position, to)
		n.world.mu.Unlock()
		var wanted []*feedv1.Revision
		for _, revision := range m.GetRevisions() {
			if len(r.GetRanges()) == 0 || inRanges(revision.GetEvents()[0].GetKey(), r.GetRanges()) {
				wanted = append(wanted, revision)
			}
		}
		m.Revisions = wanted
		if err := stream.Send(m); err != nil {
			return err
		}
		position = to
	}
	return nil
}

func inRanges(key []byte, ranges []*consensusv1.KeyRange) bool {
	for _, r := range ranges {
		if bytes.Equal(key, r.GetKey()) || (len(r.GetRangeEnd()) > 0 && bytes.Compare(key, r.GetKey()) >= 0 &&
			(bytes.Compare(key, r.GetRangeEnd()) < 0 || bytes.Equal(r.GetRangeEnd(), []byte{0}))) {
			return true
		}
	}
	return false
}

func (n *node) PreviousValues(_ context.Context, r *consensusv1.PreviousValuesRequest) (*consensusv1.PreviousValuesResponse, error) {
	response := &consensusv1.PreviousValuesResponse{}
	for _, k := range r.GetKeys() {
		response.Kvs = append(response.Kvs, fmt.Appendf(nil, "v%d", k.GetModRevision()))
	}
	return response, nil
}
