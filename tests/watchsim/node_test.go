package watchsim

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/credit"
)

// ringRevisions is what a node keeps in memory across compaction.
const ringRevisions = 150

// node is one consensus node of the model; what is not the world's is its own.
type node struct {
	consensusv1.UnimplementedConsensusServer
	world *world
	id    uint64

	// guarded by world.mu
	up, lags  bool
	applied   int64
	run       uint64
	announced map[string]*consensusv1.Announcement
}

func nodeAddress(id uint64) string { return fmt.Sprintf("n%d:1", id) }

func (w *world) addNode(id uint64) *node {
	n := &node{world: w, id: id, up: true, applied: 1, run: 1, announced: map[string]*consensusv1.Announcement{}}
	w.nodes[id] = n
	return n
}

// state fills in what each message says of its speaker; the caller holds the lock.
func (n *node) state(m *feedv1.Message) *feedv1.Message {
	w := n.world
	m.Version, m.ClusterId, m.Publisher, m.PublisherRun = 1, clusterID, n.id, n.run
	m.Term, m.Leader, m.HasLeader = w.term, w.leader, w.leader != 0
	m.HeadRevision, m.CompactRevision = n.applied, min(w.compact, n.applied)
	return m
}

// publish tells the bus what this node applied while it leads, until the context ends.
func (n *node) publish(ctx context.Context, to bus.Bus) {
	position := int64(1)
	beat := time.NewTicker(100 * time.Millisecond)
	defer beat.Stop()
	for {
		w := n.world
		w.mu.Lock()
		changed := w.changed
		var messages []*feedv1.Message
		if n.up && w.leader == n.id {
			if position == n.applied {
				messages = []*feedv1.Message{n.state(&feedv1.Message{PreviousRevision: position, LastRevision: position})}
			}
			for position < n.applied {
				until := min(n.applied, position+1+w.rng.Int64N(5))
				messages = append(messages, n.cut(position, until)...)
				position = until
			}
		} else {
			position = n.applied
		}
		w.mu.Unlock()
		for _, m := range messages {
			_ = to.PublishValue(subject, nil, m) // what is lost is lost
		}
		select {
		case <-beat.C:
		case <-changed:
			time.Sleep(time.Millisecond)
		case <-ctx.Done():
			return
		}
	}
}

var subject = fmt.Sprintf("holdfast.%016x.changes", clusterID)

// cut makes the messages of (from, to]: one, one without its body, or parts. The caller holds the lock.
func (n *node) cut(from, to int64) []*feedv1.Message {
	w := n.world
	whole := n.state(&feedv1.Message{PreviousRevision: from, LastRevision: to, Revisions: w.revisions(from, to, nil)})
	switch k := w.rng.IntN(20); {
	case k == 0 || whole.SizeVT() > 1<<20:
		whole.Revisions, whole.BodyLess = nil, true
	case k < 3 && len(whole.Revisions) > 0:
		return n.parts(whole)
	}
	return []*feedv1.Message{whole}
}

// parts has a part for each event.
func (n *node) parts(whole *feedv1.Message) []*feedv1.Message {
	var list []*feedv1.Message
	for _, r := range whole.GetRevisions() {
		for _, e := range r.GetEvents() {
			list = append(list, n.state(&feedv1.Message{
				PreviousRevision: whole.GetPreviousRevision(), LastRevision: whole.GetLastRevision(), Part: uint32(len(list) + 1),
				Revisions: []*feedv1.Revision{{Revision: r.GetRevision(), Events: []*feedv1.Event{e}}},
			}))
		}
	}
	for _, m := range list {
		m.Parts = uint32(len(list))
	}
	return list
}

// Join tells the way, and who announced itself.
func (n *node) Join(stream consensusv1.Consensus_JoinServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	n.world.do(func() { n.announced[first.GetName()] = first })
	defer n.world.do(func() {
		if a := n.announced[first.GetName()]; a.GetRun() == first.GetRun() {
			delete(n.announced, first.GetName())
		}
	})
	go func() {
		defer cancel()
		for {
			a, err := stream.Recv()
			if err != nil {
				return
			}
			n.world.do(func() { n.announced[a.GetName()] = a })
		}
	}()
	for {
		n.world.mu.Lock()
		changed, topology := n.world.changed, n.topology()
		n.world.mu.Unlock()
		if err := stream.Send(topology); err != nil {
			return err
		}
		tell := time.After(time.Second)
		for waiting := true; waiting; {
			select {
			case <-changed:
				// Writes wake too; topologies need not come with each.
				select {
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
				}
				waiting = false
			case <-tell:
				waiting = false
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// topology is what this node knows; the caller holds the lock.
func (n *node) topology() *consensusv1.Topology {
	t := &consensusv1.Topology{ClusterId: clusterID, MemberId: n.id, Leader: n.world.leader, Term: n.world.term, MembersVersion: 3}
	for id := uint64(1); id <= uint64(len(n.world.nodes)); id++ {
		t.Members = append(t.Members, &consensusv1.Member{Id: id, PeerUrls: []string{"http://" + nodeAddress(id)}})
	}
	for _, a := range n.announced {
		t.Services = append(t.Services, a)
	}
	return t
}

// Feed streams what this node applies.
func (n *node) Feed(_ *consensusv1.FeedRequest, stream consensusv1.Consensus_FeedServer) error {
	position := int64(-1)
	for {
		n.world.mu.Lock()
		changed := n.world.changed
		if position < 0 {
			position = n.applied
		}
		to := min(n.applied, position+20)
		m := n.state(&feedv1.Message{PreviousRevision: position, LastRevision: to, Revisions: n.world.revisions(position, to, nil)})
		more := to < n.applied
		n.world.mu.Unlock()
		position = to
		if err := stream.Send(m); err != nil {
			return err
		}
		if more {
			continue
		}
		select {
		case <-changed:
		case <-time.After(100 * time.Millisecond):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// History streams past changes, from what is kept in memory or, where it is not compacted, from the store.
func (n *node) History(r *consensusv1.HistoryRequest, stream consensusv1.Consensus_HistoryServer) error {
	w := n.world
	for position := r.GetAfterRevision(); position < r.GetUpToRevision(); {
		w.mu.Lock()
		changed, applied, compact := w.changed, n.applied, min(w.compact, n.applied)
		if position+1 < compact && position < applied-ringRevisions {
			w.mu.Unlock()
			return status.Error(codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted")
		}
		if position >= applied {
			w.mu.Unlock()
			select {
			case <-changed:
				continue
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		to := min(position+1+w.rng.Int64N(30), applied, r.GetUpToRevision())
		m := n.state(&feedv1.Message{PreviousRevision: position, LastRevision: to, Revisions: w.revisions(position, to, r.GetRanges())})
		w.mu.Unlock()
		if err := stream.Send(m); err != nil {
			return err
		}
		position = to
	}
	return nil
}

// PreviousValues looks up.
func (n *node) PreviousValues(_ context.Context, r *consensusv1.PreviousValuesRequest) (*consensusv1.PreviousValuesResponse, error) {
	response := &consensusv1.PreviousValuesResponse{}
	for _, k := range r.GetKeys() {
		response.Kvs = append(response.Kvs, n.world.previous(string(k.GetKey()), k.GetModRevision()))
	}
	return response, nil
}

// Calls answers fences, if this node leads.
func (n *node) Calls(stream consensusv1.Consensus_CallsServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	if _, err := stream.Recv(); err != nil {
		return err
	}
	hello := &consensusv1.Hello{Version: 1, ClusterId: clusterID, MemberId: n.id}
	if err := stream.Send(&consensusv1.AnswerBatch{Hello: hello}); err != nil {
		return err
	}
	lane := credit.NewLane(credit.Limits{QueueItems: 1e5, QueueBytes: 1 << 30, BatchItems: 100, BatchBytes: 1 << 20},
		func(a *consensusv1.Answer) int { return len(a.GetResponse()) })
	defer lane.Close()
	go func() {
		defer cancel()
		for {
			batch, err := lane.Next(ctx)
			if err != nil || stream.Send(&consensusv1.AnswerBatch{Taken: batch.Taken, Answers: batch.Items}) != nil {
				return
			}
		}
	}()
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		lane.Taken(batch.GetTaken())
		if len(batch.GetCalls()) == 0 {
			continue
		}
		lane.Received()
		for _, call := range batch.GetCalls() {
			answer := n.answer(call)
			answer.Id = call.GetId()
			_ = lane.Put(answer)
		}
	}
}

func (n *node) answer(call *consensusv1.Call) *consensusv1.Answer {
	w := n.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if call.GetMethod() != consensusv1.Method_METHOD_FENCE || w.leader != n.id {
		return &consensusv1.Answer{Code: uint32(codes.Unavailable), Message: "etcdserver: no leader", NotProposed: true}
	}
	return &consensusv1.Answer{Revision: n.applied, Response: encode(&consensusv1.FenceResponse{
		ClusterId: clusterID, MemberId: n.id, Term: w.term, Revision: n.applied, CompactRevision: w.compact,
	})}
}
