package app_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

const (
	clusterID = 0xabc
	removal   = 2 * time.Second
)

// node is a consensus tier of one node as far as lease-services see it, with faults.
type node struct {
	consensusv1.UnimplementedConsensusServer
	bus bus.Bus // nil: direct streams alone

	mu      sync.Mutex
	leases  map[int64]*consensusv1.LeaseEntry
	revoked map[int64]time.Time // when each lease went
	changes []*feedv1.LeaseChange
	view    *feedv1.View
	heard   map[uint64]beat
	grew    chan struct{}
	reads   int
	calls   int
	pageMax int
	faults  faults
	// topology is what those who join are told, and elected is closed when it changes.
	topology *consensusv1.Topology
	elected  chan struct{}
	// marked is the sequence of each lease's last checkpoint, and records those that are held up.
	marked  map[int64]uint64
	records []*consensusv1.CheckpointLeasesRequest
}

// faults are what is wrong now.
type faults struct {
	// majority lost: nothing is confirmed, read or proposed.
	majority bool
	// deaf drops what goes out on the bus.
	deaf bool
	// outcomes lost: ExpireLeases is carried out and fails all the same.
	outcomes bool
	// silent holds back the lease changes of direct streams.
	silent bool
	// records holds up the recording of rests: the call fails, and late carries it out.
	records bool
}

type beat struct {
	instance *feedv1.Instance
	at       time.Time
	leaving  bool
}

func newNode() *node {
	return &node{
		leases: map[int64]*consensusv1.LeaseEntry{}, revoked: map[int64]time.Time{}, view: &feedv1.View{},
		heard: map[uint64]beat{}, marked: map[int64]uint64{}, grew: make(chan struct{}), pageMax: 10_000,
		topology: &consensusv1.Topology{ClusterId: clusterID, MemberId: 1, Leader: 1, Term: 1}, elected: make(chan struct{}),
	}
}

// run looks after the view and speaks on the bus until the context ends.
func (n *node) run(ctx context.Context) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		n.mu.Lock()
		n.decideView()
		n.publish(n.message(uint64(len(n.changes))))
		n.mu.Unlock()
	}
}

func (n *node) set(change func(f *faults)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	lost := n.faults.majority
	change(&n.faults)
	if lost && !n.faults.majority {
		// Whoever leads now has just begun to, and removes nobody for a removal time.
		for incarnation, h := range n.heard {
			h.at = time.Now()
			n.heard[incarnation] = h
		}
	}
}

// message is what the feed says beyond a sequence.
func (n *node) message(after uint64) *feedv1.Message {
	return &feedv1.Message{
		Version: 1, ClusterId: clusterID, HeadRevision: int64(len(n.changes)), HasLeader: true, Leader: 1, Term: 1,
		PreviousLeaseSequence: after, LeaseSequence: uint64(len(n.changes)), LeaseChanges: n.changes[after:],
		Revisions: []*feedv1.Revision{{Revision: 1, Events: []*feedv1.Event{{Key: []byte("k")}}}},
	}
}

func (n *node) publish(message *feedv1.Message) {
	if n.bus == nil || n.faults.deaf {
		return
	}
	_ = n.bus.PublishValue(fmt.Sprintf("holdfast.%016x.leases", clusterID), nil, message)
}

func (n *node) commit(change *feedv1.LeaseChange) {
	change.Sequence = uint64(len(n.changes)) + 1
	n.changes = append(n.changes, change)
	n.publish(n.message(change.Sequence - 1))
	close(n.grew)
	n.grew = make(chan struct{})
}

// lastHeard is when the last heartbeat of any instance came.
func (n *node) lastHeard() (at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.heard {
		if h.at.After(at) {
			at = h.at
		}
	}
	return at
}

func (n *node) grant(id, ttl int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.leases[id] = &consensusv1.LeaseEntry{Id: id, TtlS: ttl, GrantedSequence: uint64(len(n.changes)) + 1}
	n.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Granted{Granted: &feedv1.LeaseGranted{Id: id, TtlS: ttl}}})
}

func (n *node) revoke(id int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.remove(id, false)
}

func (n *node) remove(id int64, expired bool) {
	delete(n.leases, id)
	n.revoked[id] = time.Now()
	n.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Revoked{Revoked: &feedv1.LeaseRevoked{Ids: []int64{id}, Expired: expired}}})
}

func (n *node) checkpoint(id, rest int64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mark(id, rest, uint64(len(n.changes)))
}

// mark records a rest that was reckoned as of a sequence, or clears it.
func (n *node) mark(id, rest int64, decided uint64) {
	lease := n.leases[id]
	if lease == nil || rest > 0 && max(lease.GetGrantedSequence(), n.marked[id]) > decided {
		return
	}
	n.leases[id] = &consensusv1.LeaseEntry{
		Id: id, TtlS: lease.GetTtlS(), RemainingTtlS: rest, GrantedSequence: lease.GetGrantedSequence(),
	}
	n.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_Checkpoint{Checkpoint: &feedv1.LeaseCheckpoint{Id: id, RemainingTtlS: rest}}})
	n.marked[id] = uint64(len(n.changes))
}

func (n *node) held() []*consensusv1.CheckpointLeasesRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.records
}

// late carries out the records that were held up, and holds up no more.
func (n *node) late() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults.records = false
	for _, request := range n.records {
		n.marks(request)
	}
}

// marks carries out a call if its speaker is of the present view.
func (n *node) marks(request *consensusv1.CheckpointLeasesRequest) {
	if request.GetEpoch() != n.view.GetEpoch() {
		return
	}
	for _, c := range request.GetCheckpoints() {
		n.mark(c.GetId(), c.GetRemainingTtlS(), request.GetDecidedSequence())
	}
}

// gone tells when a lease went; ok is false while it is there.
func (n *node) gone(id int64) (at time.Time, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at, ok = n.revoked[id]
	return at, ok
}

func (n *node) count() (leases, reads, calls int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.leases), n.reads, n.calls
}

func (n *node) epoch() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.view.GetEpoch()
}

func (n *node) decideView() {
	if n.faults.majority {
		return
	}
	next := &feedv1.View{Epoch: n.view.GetEpoch() + 1}
	names := map[string]bool{}
	known := map[uint64]bool{}
	for _, instance := range n.view.GetInstances() {
		known[instance.GetIncarnation()] = true
		h := n.heard[instance.GetIncarnation()]
		newer := slices.ContainsFunc(n.latest(), func(i *feedv1.Instance) bool {
			return i.GetName() == instance.GetName() && i.GetIncarnation() > instance.GetIncarnation()
		})
		released := h.leaving || time.Since(h.at) > removal+removal/10
		if released || newer {
			next.Departed = append(next.Departed, &feedv1.Departed{Name: instance.GetName(), Incarnation: instance.GetIncarnation(), Released: released})
			continue
		}
		next.Instances = append(next.Instances, instance)
		names[instance.GetName()] = true
	}
	joined := false
	for _, instance := range n.latest() {
		if !known[instance.GetIncarnation()] && !names[instance.GetName()] {
			next.Instances, joined = append(next.Instances, instance), true
		}
	}
	if !joined && len(next.GetDeparted()) == 0 {
		return
	}
	slices.SortFunc(next.Instances, func(a, b *feedv1.Instance) int { return cmp.Compare(a.GetName(), b.GetName()) })
	n.view = next
	n.commit(&feedv1.LeaseChange{Change: &feedv1.LeaseChange_View{View: next}})
}

// latest are the instances heard of lately, the newest start of each.
func (n *node) latest() []*feedv1.Instance {
	newest := map[string]*feedv1.Instance{}
	for _, h := range n.heard {
		if old := newest[h.instance.GetName()]; !h.leaving && time.Since(h.at) <= removal && old.GetIncarnation() < h.instance.GetIncarnation() {
			newest[h.instance.GetName()] = h.instance
		}
	}
	list := make([]*feedv1.Instance, 0, len(newest))
	for _, instance := range newest {
		list = append(list, instance)
	}
	return list
}

// await makes what needs a majority wait until there is one.
func (n *node) await(ctx context.Context) error {
	for {
		n.mu.Lock()
		lost := n.faults.majority
		n.mu.Unlock()
		if !lost {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (n *node) Join(stream consensusv1.Consensus_JoinServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for {
		n.mu.Lock()
		topology, elected := proto.CloneOf(n.topology), n.elected
		n.mu.Unlock()
		if err := stream.Send(topology); err != nil {
			return err
		}
		select {
		case <-elected:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// elect has all hear of a leader under the next term: the member with that id, of the two that this one stands for.
func (n *node) elect(leader uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.topology = &consensusv1.Topology{
		ClusterId: clusterID, MemberId: 1, Leader: leader, Term: n.topology.GetTerm() + 1,
		Members: []*consensusv1.Member{{Id: 1, PeerUrls: []string{"http://node:1"}}, {Id: 2, PeerUrls: []string{"http://node:2"}}},
	}
	close(n.elected)
	n.elected = make(chan struct{})
}

func (n *node) Feed(_ *consensusv1.FeedRequest, stream consensusv1.Consensus_FeedServer) error {
	n.mu.Lock()
	position := uint64(len(n.changes))
	n.mu.Unlock()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		n.mu.Lock()
		message, grew := n.message(position), n.grew
		if n.faults.silent {
			message.LeaseChanges = nil
		}
		position = message.GetLeaseSequence()
		n.mu.Unlock()
		if err := stream.Send(message); err != nil {
			return err
		}
		select {
		case <-grew:
		case <-ticker.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (n *node) LeaseTable(_ context.Context, request *consensusv1.LeaseTableRequest) (*consensusv1.LeaseTableResponse, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	response := &consensusv1.LeaseTableResponse{Sequence: uint64(len(n.changes)), View: n.view}
	var ids []int64
	for id := range n.leases {
		if id > request.GetAfterId() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if len(response.Leases) == n.pageMax {
			response.More = true
			break
		}
		response.Leases = append(response.Leases, n.leases[id])
	}
	return response, nil
}

func (n *node) LeaseHeartbeat(ctx context.Context, request *consensusv1.LeaseHeartbeatRequest) (*consensusv1.LeaseHeartbeatResponse, error) {
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if incarnation := request.GetInstance().GetIncarnation(); !n.heard[incarnation].leaving {
		n.heard[incarnation] = beat{request.GetInstance(), time.Now(), request.GetLeave()}
	}
	n.decideView()
	return &consensusv1.LeaseHeartbeatResponse{
		Sequence: uint64(len(n.changes)), View: n.view, RemovalMs: uint32(removal.Milliseconds()),
	}, nil
}

func (n *node) ExpireLeases(ctx context.Context, request *consensusv1.ExpireLeasesRequest) (*consensusv1.ExpireLeasesResponse, error) {
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	response := &consensusv1.ExpireLeasesResponse{}
	for _, id := range request.GetIds() {
		outcome := consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED
		switch {
		case n.leases[id] == nil:
			outcome = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND
		case request.GetEpoch() != n.view.GetEpoch() || !n.owns(request, id) ||
			request.GetDecidedSequence() < n.leases[id].GetGrantedSequence():
			outcome = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER
		default:
			n.remove(id, true)
		}
		response.Outcomes = append(response.Outcomes, outcome)
	}
	response.Sequence = uint64(len(n.changes))
	if n.faults.outcomes {
		return nil, status.Error(codes.Unavailable, "the outcome was lost")
	}
	return response, nil
}

func (n *node) owns(request *consensusv1.ExpireLeasesRequest, id int64) bool {
	names := make([]string, len(n.view.GetInstances()))
	for i, instance := range n.view.GetInstances() {
		names[i] = instance.GetName()
	}
	i := rendezvous.Owner(id, names)
	return i >= 0 && n.view.GetInstances()[i].GetIncarnation() == request.GetIncarnation()
}

func (n *node) CheckpointLeases(ctx context.Context, request *consensusv1.CheckpointLeasesRequest) (*consensusv1.CheckpointLeasesResponse, error) {
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.faults.records && request.GetCheckpoints()[0].GetRemainingTtlS() > 0 {
		n.records = append(n.records, request)
		return nil, status.Error(codes.Unavailable, "held up")
	}
	n.marks(request)
	return &consensusv1.CheckpointLeasesResponse{Sequence: uint64(len(n.changes))}, nil
}

func (n *node) ReadLeases(ctx context.Context, request *consensusv1.ReadLeasesRequest) (*consensusv1.ReadLeasesResponse, error) {
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reads++
	response := &consensusv1.ReadLeasesResponse{Sequence: uint64(len(n.changes)), TtlS: make([]int64, len(request.GetIds()))}
	for i, id := range request.GetIds() {
		response.TtlS[i] = n.leases[id].GetTtlS()
	}
	return response, nil
}
