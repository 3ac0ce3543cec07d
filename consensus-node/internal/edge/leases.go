package edge

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/consensus-node/internal/liveness"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// Leases is the leader's judgement of who is alive among the lease-service instances, shared by the calls that feed it and the
// loop that acts on it.
type Leases struct {
	now func() time.Duration

	mu     sync.Mutex
	keeper *liveness.Keeper
	// changing is held while one change of view is on its way.
	changing sync.Mutex
}

// NewLeases makes it; now reads a clock that goes on while the machine sleeps.
func NewLeases(now func() time.Duration) *Leases {
	return &Leases{now: now, keeper: liveness.New()}
}

// RunLeases follows leadership and changes the view when it is due, until the context ends.
func (s *Server) RunLeases(ctx context.Context) error {
	ticker := time.NewTicker(liveness.Margin / 2)
	defer ticker.Stop()
	led := uint64(0) // the term in which this node leads, or 0
	for {
		leadership, changed := s.cfg.Raft.Leadership()
		term := uint64(0)
		if leadership.Leader == s.cfg.MemberID {
			term = leadership.Term
		}
		if term != led {
			led = term
			s.turn(led != 0)
		}
		if led != 0 {
			s.changeView(ctx)
		}
		select {
		case <-ticker.C:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) turn(leads bool) {
	l := s.cfg.Leases
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeper.Follow()
	if leads {
		l.keeper.Lead(l.now())
	}
}

// changeView proposes the change of view that is due, if any, and waits for it. A change that is lost is decided anew.
func (s *Server) changeView(ctx context.Context) {
	l := s.cfg.Leases
	l.changing.Lock()
	defer l.changing.Unlock()
	view, err := s.cfg.Node.Current()
	if err != nil {
		return
	}
	cluster := view.Leases.Cluster()
	view.Release()
	l.mu.Lock()
	change := l.keeper.Decide(l.now(), cluster)
	l.mu.Unlock()
	if change == nil {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	write := propose.Write{Command: &journalv1.Command{Command: &journalv1.Command_ViewChange{ViewChange: change}}}
	if _, err := s.propose(bounded, write); err != nil {
		s.cfg.Logger.Warn("the view of the lease-service was not changed", "epoch", cluster.GetEpoch(), "error", err)
	}
}

// errNotLeader tells a service that it must ask another node.
func (s *Server) errNotLeader() error {
	return status.Errorf(codes.FailedPrecondition, "member %x does not lead", s.cfg.MemberID)
}

func (s *Server) leads() bool { return s.cfg.Raft.Status().Leader == s.cfg.MemberID }

// LeaseHeartbeat confirms an instance: only after a read-index round that began after the heartbeat arrived.
func (s *Server) LeaseHeartbeat(
	ctx context.Context, request *consensusv1.LeaseHeartbeatRequest,
) (*consensusv1.LeaseHeartbeatResponse, error) {
	instance := request.GetInstance()
	if instance.GetName() == "" || instance.GetIncarnation() == 0 {
		return nil, status.Error(codes.InvalidArgument, "a heartbeat needs a name and an incarnation")
	}
	if !s.leads() {
		return nil, s.errNotLeader()
	}
	l := s.cfg.Leases
	l.mu.Lock()
	l.keeper.Heartbeat(l.now(), instance, request.GetLeave())
	l.mu.Unlock()
	s.changeView(ctx)
	bounded, cancel := context.WithTimeout(ctx, liveness.Removal)
	defer cancel()
	view, err := s.cfg.Node.Linearize(bounded)
	if err != nil {
		return nil, waitError(err)
	}
	defer view.Release()
	if !s.leads() {
		return nil, s.errNotLeader()
	}
	return &consensusv1.LeaseHeartbeatResponse{
		Sequence: view.Leases.Sequence(), View: view.Leases.Cluster(), RemovalMs: uint32(liveness.Removal.Milliseconds()),
	}, nil
}

// ExpireLeases proposes revokes that an owner decided on.
func (s *Server) ExpireLeases(ctx context.Context, request *consensusv1.ExpireLeasesRequest) (*consensusv1.ExpireLeasesResponse, error) {
	outcome, err := s.proposeForOwner(ctx, &journalv1.Command{Command: &journalv1.Command_LeaseExpire{LeaseExpire: &journalv1.LeaseExpire{
		Ids: request.GetIds(), Epoch: request.GetEpoch(), Name: request.GetName(), Incarnation: request.GetIncarnation(),
	}}})
	if err != nil {
		return nil, err
	}
	response, ok := outcome.Response.(*consensusv1.ExpireLeasesResponse)
	if !ok {
		return nil, status.Error(codes.Internal, "apply gave no outcome of the expiry")
	}
	return response, nil
}

// CheckpointLeases records or clears the rest of long leases.
func (s *Server) CheckpointLeases(
	ctx context.Context, request *consensusv1.CheckpointLeasesRequest,
) (*consensusv1.CheckpointLeasesResponse, error) {
	outcome, err := s.proposeForOwner(ctx, &journalv1.Command{Command: &journalv1.Command_LeaseCheckpoint{
		LeaseCheckpoint: &journalv1.LeaseCheckpoints{
			Checkpoints: request.GetCheckpoints(), Epoch: request.GetEpoch(), Name: request.GetName(), Incarnation: request.GetIncarnation(),
		},
	}})
	if err != nil {
		return nil, err
	}
	response, ok := outcome.Response.(*consensusv1.CheckpointLeasesResponse)
	if !ok {
		return nil, status.Error(codes.Internal, "apply gave no outcome of the checkpoint")
	}
	return response, nil
}

func (s *Server) proposeForOwner(ctx context.Context, command *journalv1.Command) (propose.Outcome, error) {
	if !s.leads() {
		return propose.Outcome{}, s.errNotLeader()
	}
	outcome, err := s.propose(ctx, propose.Write{Command: command, Exclusive: true})
	switch {
	case err == nil:
		return outcome, nil
	case outcome.NotProposed:
		return outcome, s.errNotLeader()
	}
	return outcome, s.failures.Map(ctx, "lease", waitError(err))
}

// ReadLeases says which leases exist, at a read index taken after the call arrived.
func (s *Server) ReadLeases(ctx context.Context, request *consensusv1.ReadLeasesRequest) (*consensusv1.ReadLeasesResponse, error) {
	view, err := s.cfg.Node.Linearize(ctx)
	if err != nil {
		return nil, waitError(err)
	}
	defer view.Release()
	response := &consensusv1.ReadLeasesResponse{Sequence: view.Leases.Sequence(), TtlS: make([]int64, len(request.GetIds()))}
	for i, id := range request.GetIds() {
		if lease, ok := view.Leases.Get(id); ok {
			response.TtlS[i] = lease.TTLS
		}
	}
	return response, nil
}

// leasePageMax bounds one page of the lease table.
const leasePageMax = 10_000

// LeaseTable reads the lease table in pages.
func (s *Server) LeaseTable(ctx context.Context, request *consensusv1.LeaseTableRequest) (*consensusv1.LeaseTableResponse, error) {
	view, err := s.cfg.Node.AtLeaseSequence(ctx, request.GetMinSequence())
	if err != nil {
		return nil, waitError(err)
	}
	defer view.Release()
	limit := min(int(request.GetLimit()), leasePageMax)
	if limit <= 0 {
		limit = leasePageMax
	}
	leases, more := view.Leases.Page(request.GetAfterId(), limit)
	response := &consensusv1.LeaseTableResponse{
		Sequence: view.Leases.Sequence(), View: view.Leases.Cluster(), More: more, Leases: make([]*consensusv1.LeaseEntry, len(leases)),
	}
	for i, lease := range leases {
		response.Leases[i] = &consensusv1.LeaseEntry{Id: lease.ID, TtlS: lease.TTLS, RemainingTtlS: lease.RemainingTTLS}
	}
	return response, nil
}

// SetMember records a member's name and client URLs.
func (s *Server) SetMember(ctx context.Context, member *consensusv1.Member) (*consensusv1.SetMemberResponse, error) {
	if !s.leads() {
		return nil, s.errNotLeader()
	}
	command := &journalv1.Command{Command: &journalv1.Command_MemberAttributes{MemberAttributes: &journalv1.MemberAttributes{
		Id: member.GetId(), Name: member.GetName(), ClientUrls: member.GetClientUrls(),
	}}}
	outcome, err := s.propose(ctx, propose.Write{Command: command})
	if outcome.NotProposed {
		return nil, s.errNotLeader()
	}
	if err != nil {
		return nil, s.failures.Map(ctx, "SetMember", waitError(err))
	}
	return &consensusv1.SetMemberResponse{}, nil
}
