package app_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/credit"
)

const clusterID = 0xc1

// world is a fake consensus tier with a single history, seen through several fake nodes, and the services around it.
type world struct {
	mu       sync.Mutex
	topology *consensusv1.Topology
	changed  chan struct{}
	revision int64
	compact  int64
	// leaseEpoch is what revokes tell.
	leaseEpoch uint64
	history    []*feedv1.Revision
	// log names what reached the tier, in order.
	log []string
}

func newWorld() *world {
	return &world{
		topology: &consensusv1.Topology{ClusterId: clusterID, Term: 2}, changed: make(chan struct{}), revision: 1,
	}
}

func (w *world) update(f func(t *consensusv1.Topology)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := proto.Clone(w.topology).(*consensusv1.Topology)
	f(next)
	w.topology = next
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *world) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *world) notes() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.log...)
}

// put makes a revision.
func (w *world) put(key, value string, span []byte) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revision++
	kv, _ := proto.Marshal(&mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: w.revision})
	w.history = append(w.history, &feedv1.Revision{
		Revision: w.revision, SpanContext: span, Events: []*feedv1.Event{{Key: []byte(key), Kv: kv}},
	})
	close(w.changed)
	w.changed = make(chan struct{})
	return w.revision
}

// node is one fake consensus node.
type node struct {
	consensusv1.UnimplementedConsensusServer
	world *world
	id    uint64
	// intercept may answer a call in the node's stead; a nil answer with true gives none.
	mu        sync.Mutex
	intercept func(call *consensusv1.Call) (*consensusv1.Answer, bool)
	streamed  func(call *consensusv1.Call, stream consensusv1.Consensus_StreamServer) error
	cut       chan struct{}
	// silent holds back what Join would say.
	silent atomic.Bool
}

func newNode(w *world, id uint64) *node { return &node{world: w, id: id, cut: make(chan struct{})} }

func (n *node) on(f func(call *consensusv1.Call) (*consensusv1.Answer, bool)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.intercept = f
}

// cutStreams breaks every Calls stream.
func (n *node) cutStreams() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.cut)
	n.cut = make(chan struct{})
}

func (n *node) Join(stream consensusv1.Consensus_JoinServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		n.world.mu.Lock()
		topology, changed := proto.Clone(n.world.topology).(*consensusv1.Topology), n.world.changed
		n.world.mu.Unlock()
		topology.MemberId = n.id
		if !n.silent.Load() {
			if err := stream.Send(topology); err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (n *node) Calls(stream consensusv1.Consensus_CallsServer) error {
	n.mu.Lock()
	cut := n.cut
	n.mu.Unlock()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if id := first.GetHello().GetClusterId(); id != clusterID {
		return status.Errorf(codes.FailedPrecondition, "this is cluster %x, not %x", clusterID, id)
	}
	hello := &consensusv1.Hello{Version: 1, ClusterId: clusterID, MemberId: n.id}
	if err := stream.Send(&consensusv1.AnswerBatch{Hello: hello}); err != nil {
		return err
	}
	lane := credit.NewLane(credit.Limits{QueueItems: 1e5, QueueBytes: 1 << 30, BatchItems: 100, BatchBytes: 1 << 20},
		func(a *consensusv1.Answer) int { return len(a.GetResponse()) })
	go func() {
		for {
			batch, err := lane.Next(ctx)
			if err != nil {
				return
			}
			if stream.Send(&consensusv1.AnswerBatch{Taken: batch.Taken, Answers: batch.Items}) != nil {
				return
			}
		}
	}()
	batches := make(chan *consensusv1.CallBatch)
	go func() {
		defer cancel()
		for {
			batch, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case batches <- batch:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case batch := <-batches:
			lane.Taken(batch.GetTaken())
			if len(batch.GetCalls()) == 0 {
				continue
			}
			lane.Received()
			for _, call := range batch.GetCalls() {
				if answer := n.answer(call); answer != nil {
					answer.Id = call.GetId()
					_ = lane.Put(answer)
				}
			}
		case <-cut:
			return status.Error(codes.Unavailable, "cut")
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *node) answer(call *consensusv1.Call) *consensusv1.Answer {
	n.mu.Lock()
	intercept := n.intercept
	n.mu.Unlock()
	if intercept != nil {
		if answer, done := intercept(call); done {
			return answer
		}
	}
	return n.world.answer(n.id, call)
}

// ok encodes a response.
func ok(m proto.Message, revision int64) *consensusv1.Answer {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &consensusv1.Answer{Response: b, Revision: revision}
}

func (w *world) answer(id uint64, call *consensusv1.Call) *consensusv1.Answer {
	w.note("n%d %s", id, call.GetMethod().String()[len("METHOD_"):])
	header := func() *pb.ResponseHeader {
		w.mu.Lock()
		defer w.mu.Unlock()
		return &pb.ResponseHeader{ClusterId: clusterID, MemberId: id, Revision: w.revision, RaftTerm: w.topology.GetTerm()}
	}
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_PUT:
		var put pb.PutRequest
		if proto.Unmarshal(call.GetRequest(), &put) != nil || len(put.GetKey()) == 0 {
			return &consensusv1.Answer{Code: uint32(codes.InvalidArgument), Message: "etcdserver: key is not provided", NotProposed: true}
		}
		revision := w.put(string(put.GetKey()), string(put.GetValue()), call.GetSpanContext())
		return ok(&pb.PutResponse{Header: header()}, revision)
	case consensusv1.Method_METHOD_RANGE:
		h := header()
		return ok(&pb.RangeResponse{Header: h, Count: call.GetMinRevision()}, h.Revision)
	case consensusv1.Method_METHOD_FENCE:
		h := header()
		w.mu.Lock()
		defer w.mu.Unlock()
		return ok(&consensusv1.FenceResponse{
			ClusterId: clusterID, MemberId: id, Term: h.RaftTerm, Revision: h.Revision, CompactRevision: w.compact,
		}, h.Revision)
	case consensusv1.Method_METHOD_LEASE_REVOKE:
		var request pb.LeaseRevokeRequest
		switch _ = proto.Unmarshal(call.GetRequest(), &request); request.GetID() {
		case 0, 405:
			return &consensusv1.Answer{Code: uint32(codes.NotFound), Message: "etcdserver: requested lease not found"}
		case 408:
			return &consensusv1.Answer{Code: uint32(codes.Unavailable), Message: "etcdserver: request timed out"}
		}
		answer := ok(&pb.LeaseRevokeResponse{Header: header()}, 0)
		answer.LeaseEpoch = w.leaseEpoch
		return answer
	case consensusv1.Method_METHOD_LEASE_TIME_TO_LIVE:
		var request pb.LeaseTimeToLiveRequest
		_ = proto.Unmarshal(call.GetRequest(), &request)
		response := &pb.LeaseTimeToLiveResponse{Header: header(), ID: request.GetID(), TTL: 60, GrantedTTL: 60}
		if request.GetID() == 404 {
			response.TTL, response.GrantedTTL = -1, 0
		}
		return ok(response, 0)
	default:
		return &consensusv1.Answer{Code: uint32(codes.Unimplemented), Message: "not here"}
	}
}

// deliveryRevisionsMax keeps the fake hub's deliveries small.
const deliveryRevisionsMax = 8

// hub is a fake watch-hub over the world's history: every registration joins at once, after what it missed.
type hub struct {
	watchv1.UnimplementedHubServer
	world *world
	name  string

	mu            sync.Mutex
	registrations int
	cut           chan struct{}
	// silent holds back all that Watch would say; stuck goes on saying that nothing is new.
	silent, stuck atomic.Bool
}

func newHub(w *world, name string) *hub { return &hub{world: w, name: name, cut: make(chan struct{})} }

func (h *hub) registered() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.registrations
}

func (h *hub) cutStreams() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.cut)
	h.cut = make(chan struct{})
}

func (h *hub) Watch(stream watchv1.Hub_WatchServer) error {
	h.mu.Lock()
	cut := h.cut
	h.mu.Unlock()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetName() == "" {
		return status.Error(codes.InvalidArgument, "who speaks?")
	}
	requests := make(chan *watchv1.HubRequest)
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		defer cancel()
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- request:
			case <-ctx.Done():
				return
			}
		}
	}()
	live := int64(-1)
	regs := map[uint64]*watchv1.Registration{}
	taken := uint64(0)
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		h.world.mu.Lock()
		head, changed := h.world.revision, h.world.changed
		history := h.world.history
		h.world.mu.Unlock()
		if live < 0 {
			live = head
		}
		if h.silent.Load() {
			<-ctx.Done()
			return nil
		}
		if head > live && !h.stuck.Load() {
			head = min(head, live+deliveryRevisionsMax)
			response := &watchv1.HubResponse{Taken: taken, LiveFrom: live, LiveTo: head, HasLeader: true}
			response.Deliveries = deliveries(regs, history, live, head)
			if err := stream.Send(response); err != nil {
				return err
			}
			live = head
			continue
		}
		select {
		case request := <-requests:
			if len(request.GetRegister())+len(request.GetCancel()) == 0 {
				continue
			}
			taken++
			response := &watchv1.HubResponse{Taken: taken, LiveFrom: live, LiveTo: live, HasLeader: true}
			for _, reg := range request.GetRegister() {
				missed := map[uint64]*watchv1.Registration{reg.GetId(): reg}
				for from := reg.GetNextRevision() - 1; from < live; from += deliveryRevisionsMax {
					to := min(live, from+deliveryRevisionsMax)
					response.Deliveries = append(response.Deliveries, deliveries(missed, history, from, to)...)
				}
				response.Joined = append(response.Joined, reg.GetId())
				regs[reg.GetId()] = reg
			}
			for _, id := range request.GetCancel() {
				delete(regs, id)
			}
			h.mu.Lock()
			h.registrations = len(regs)
			h.mu.Unlock()
			if err := stream.Send(response); err != nil {
				return err
			}
		case <-changed:
		case <-ticker.C:
			if h.silent.Load() {
				continue
			}
			if err := stream.Send(&watchv1.HubResponse{Taken: taken, LiveFrom: live, LiveTo: live, HasLeader: true}); err != nil {
				return err
			}
		case <-cut:
			return status.Error(codes.Unavailable, "cut")
		case <-ctx.Done():
			return nil
		}
	}
}

func deliveries(regs map[uint64]*watchv1.Registration, history []*feedv1.Revision, from, to int64) []*watchv1.Delivery {
	byKey := map[string]*watchv1.Delivery{}
	var list []*watchv1.Delivery
	for id, reg := range regs {
		d := byKey[string(reg.GetKey())]
		if d == nil {
			d = &watchv1.Delivery{From: from, To: to}
			for _, revision := range history {
				if revision.GetRevision() > from && revision.GetRevision() <= to && string(revision.GetEvents()[0].GetKey()) == string(reg.GetKey()) {
					d.Revisions = append(d.Revisions, revision)
				}
			}
			byKey[string(reg.GetKey())] = d
			if len(d.Revisions) > 0 || len(regs) == 1 {
				list = append(list, d)
			}
		}
		d.Registrations = append(d.Registrations, id)
	}
	return list
}

// keeper is a fake lease-service instance.
type keeper struct {
	leasev1.UnimplementedKeeperServer
	world *world
	name  string

	mu     sync.Mutex
	decide func(lease int64) *leasev1.KeepAliveAnswer
	epochs []uint64 // under which the next stops hold; then it tells none
}

func (k *keeper) on(decide func(lease int64) *leasev1.KeepAliveAnswer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.decide = decide
}

func (k *keeper) KeepAlives(stream leasev1.Keeper_KeepAlivesServer) error {
	taken := uint64(0)
	for {
		batch, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(batch.GetKeepAlives()) == 0 {
			continue
		}
		taken++
		answers := &leasev1.KeepAliveAnswers{Taken: taken}
		for _, one := range batch.GetKeepAlives() {
			k.mu.Lock()
			decide := k.decide
			k.mu.Unlock()
			answer := &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_RENEWED, TtlS: one.GetLease() % 100, Revision: 7}
			switch {
			case one.GetAsk() != leasev1.Ask_ASK_UNSPECIFIED:
				answer = k.revoking(one)
			case decide != nil:
				if a := decide(one.GetLease()); a != nil {
					answer = a
				}
			}
			answer.Id = one.GetId()
			answers.Answers = append(answers.Answers, answer)
		}
		if err := stream.Send(answers); err != nil {
			return err
		}
	}
}

// revoking answers what is told of a client's revoke.
func (k *keeper) revoking(one *leasev1.KeepAlive) *leasev1.KeepAliveAnswer {
	if one.GetAsk() == leasev1.Ask_ASK_RESUME {
		k.world.note("%s resume %d", k.name, one.GetLease())
		return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_DONE}
	}
	k.world.note("%s stop %d", k.name, one.GetLease())
	if one.GetLease() == 404 {
		return &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_NOT_FOUND}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	answer := &leasev1.KeepAliveAnswer{Outcome: leasev1.Outcome_OUTCOME_DONE}
	if len(k.epochs) > 0 {
		answer.Epoch, k.epochs = k.epochs[0], k.epochs[1:]
	}
	return answer
}

func (k *keeper) Remaining(_ context.Context, request *leasev1.RemainingRequest) (*leasev1.RemainingResponse, error) {
	id := request.GetLeases()[0]
	rest := &leasev1.Remaining{Lease: id, Outcome: leasev1.Outcome_OUTCOME_RENEWED, RemainingTtlS: 42}
	if id == 405 {
		rest.Outcome = leasev1.Outcome_OUTCOME_NOT_FOUND
	}
	return &leasev1.RemainingResponse{Remaining: []*leasev1.Remaining{rest}}, nil
}

// binding makes a part reachable and gives it an address: over gRPC on a local port, or directly.
type binding interface {
	serve(t *testing.T, register func(grpc.ServiceRegistrar)) (address string, stop func())
}

var errRefused = errors.New("nobody listens")

// overGRPC serves on 127.0.0.1.
type overGRPC struct{}

func (overGRPC) serve(t *testing.T, register func(grpc.ServiceRegistrar)) (string, func()) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := grpc.NewServer()
	register(server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	stop := func() { server.Stop(); serving.Wait() }
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}
