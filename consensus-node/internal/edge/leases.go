package edge

import (
	"context"
	"errors"
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
	led    uint64 // the term in which this node leads, as far as the keeper was told, or 0
	// changing holds a token while one change of view is on its way.
	changing chan struct{}
}

// NewLeases makes it; now reads a clock that goes on while the machine sleeps.
func NewLeases(now func() time.Duration) *Leases {
	return &Leases{now: now, keeper: liveness.New(), changing: make(chan struct{}, 1)}
}

// at runs f on the keeper as of the given leadership (0: this node does not lead). Whoever uses the keeper says so first: between two
// of its own terms another leader may have confirmed heartbeats that this keeper never saw, and what it heard before
// must not decide.
func (l *Leases) at(term uint64, f func(keeper *liveness.Keeper, now time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if term < l.led && term != 0 {
		return // asked by someone who read the leadership before it was lost and won again
	}
	if term != l.led {
		l.led = term
		l.keeper.Follow()
		if term != 0 {
			l.keeper.Lead(now)
		}
	}
	f(l.keeper, now)
}

// RunLeases follows leadership and changes the view when it is due, until the context ends.
func (s *Server) RunLeases(ctx context.Context) error {
	ticker := time.NewTicker(liveness.Margin / 2)
	defer ticker.Stop()
	leading := &leading{}
	defer leading.end()
	for {
		_, changed := s.cfg.Raft.Leadership()
		term := s.ledTerm()
		leading.follow(ctx, term, s.inherit)
		if term != 0 {
			s.changeView(ctx, term)
		} else {
			s.cfg.Leases.at(0, func(*liveness.Keeper, time.Duration) {})
		}
		select {
		case <-ticker.C:
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// leading has something run once for each term in which this node leads, as long as it does.
type leading struct {
	term    uint64
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (l *leading) follow(ctx context.Context, term uint64, work func(ctx context.Context, term uint64)) {
	if term == l.term {
		return
	}
	l.end()
	if l.term = term; term != 0 {
		ctx, l.cancel = context.WithCancel(ctx)
		l.running.Go(func() { work(ctx, term) })
	}
}

func (l *leading) end() {
	if l.cancel != nil {
		l.cancel()
	}
	l.running.Wait()
}

// inherit finds out since when no earlier leader can have confirmed a heartbeat. Without an answer the start of the leadership counts.
func (s *Server) inherit(ctx context.Context, term uint64) {
	at, err := s.cfg.Raft.Inherited(ctx, term, s.cfg.Silence)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Debug("not known since when no earlier leader confirmed anything", "term", term, "error", err)
		}
		return
	}
	s.cfg.Leases.at(term, func(keeper *liveness.Keeper, _ time.Duration) { keeper.Inherit(at) })
}

// changeView proposes the change of view that is due under the leadership of a term, if any, and waits for it. A change that is
// lost is decided anew.
func (s *Server) changeView(ctx context.Context, term uint64) {
	l := s.cfg.Leases
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	select {
	case l.changing <- struct{}{}:
		defer func() { <-l.changing }()
	case <-bounded.Done():
		return
	}
	view, err := s.cfg.Node.Current()
	if err != nil {
		return
	}
	cluster := view.Leases.Cluster()
	view.Release()
	var change *journalv1.ViewChange
	l.at(term, func(keeper *liveness.Keeper, now time.Duration) { change = keeper.Decide(now, cluster) })
	if change == nil {
		return
	}
	// Only in the term it was decided in: under another leader in between an instance that is to go may have been confirmed.
	write := propose.Write{Command: &journalv1.Command{Command: &journalv1.Command_ViewChange{ViewChange: change}}, Term: term}
	if _, err := s.propose(bounded, write); err != nil {
		s.cfg.Logger.Warn("the view of the lease-service was not changed", "epoch", cluster.GetEpoch(), "error", err)
	}
}

// errNotLeader tells a service that it must ask another node.
func (s *Server) errNotLeader() error {
	return status.Errorf(codes.FailedPrecondition, "member %x does not lead", s.cfg.MemberID)
}

func (s *Server) leads() bool { return s.ledTerm() != 0 }

// ledTerm is the term in which this node leads, or 0 if it does not.
func (s *Server) ledTerm() uint64 {
	if status := s.cfg.Raft.Status(); status.Leader == s.cfg.MemberID {
		return status.Term
	}
	return 0
}

// LeaseHeartbeat confirms an instance: only after a read-index round that began after the heartbeat arrived, and only if this node
// led all the time, so that what it heard counts for whoever decides about the instance next.
func (s *Server) LeaseHeartbeat(
	ctx context.Context, request *consensusv1.LeaseHeartbeatRequest,
) (*consensusv1.LeaseHeartbeatResponse, error) {
	instance := request.GetInstance()
	if instance.GetName() == "" || instance.GetIncarnation() == 0 {
		return nil, status.Error(codes.InvalidArgument, "a heartbeat needs a name and an incarnation")
	}
	term := s.ledTerm()
	if term == 0 {
		return nil, s.errNotLeader()
	}
	s.cfg.Leases.at(term, func(keeper *liveness.Keeper, now time.Duration) {
		keeper.Heartbeat(now, instance, request.GetLeave())
	})
	// A confirmation that takes longer than the right it gives is of no use.
	bounded, cancel := context.WithTimeout(ctx, liveness.Removal)
	defer cancel()
	s.changeView(bounded, term)
	view, err := s.cfg.Node.Linearize(bounded)
	if err != nil {
		return nil, s.mapped(ctx, "LeaseHeartbeat", err)
	}
	defer view.Release()
	if s.ledTerm() != term {
		return nil, s.errNotLeader()
	}
	return &consensusv1.LeaseHeartbeatResponse{
		Sequence: view.Leases.Sequence(), View: view.Leases.Cluster(), RemovalMs: uint32(liveness.Removal.Milliseconds()),
	}, nil
}

// ExpireLeases proposes revokes that an owner decided on.
func (s *Server) ExpireLeases(ctx context.Context, request *consensusv1.ExpireLeasesRequest) (*consensusv1.ExpireLeasesResponse, error) {
	command := &journalv1.Command{Command: &journalv1.Command_LeaseExpire{LeaseExpire: &journalv1.LeaseExpire{
		Ids: request.GetIds(), Epoch: request.GetEpoch(), Name: request.GetName(), Incarnation: request.GetIncarnation(),
		DecidedSequence: request.GetDecidedSequence(),
	}}}
	span := s.startOwnerSpan(ctx, "holdfast.consensus/expire", len(request.GetIds()))
	if span != nil {
		command.SpanContext = encodeSpan(span)
	}
	outcome, err := s.proposeForOwner(ctx, command)
	if span != nil {
		outcome.Err = err
		endSpan(span, outcome)
	}
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
			DecidedSequence: request.GetDecidedSequence(),
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
	outcome, err := s.propose(ctx, propose.Write{Command: command})
	switch {
	case err == nil:
		return outcome, nil
	case outcome.NotProposed && !s.leads(), errors.Is(err, propose.ErrLost):
		return outcome, s.errNotLeader()
	}
	return outcome, s.mapped(ctx, "lease", err)
}

// ReadLeases says which leases exist, at a read index taken after the call arrived.
func (s *Server) ReadLeases(ctx context.Context, request *consensusv1.ReadLeasesRequest) (*consensusv1.ReadLeasesResponse, error) {
	bounded, cancel := context.WithTimeout(ctx, s.cfg.Limits.RequestTimeout)
	defer cancel()
	view, err := s.cfg.Node.Linearize(bounded)
	if err != nil {
		return nil, s.mapped(ctx, "ReadLeases", err)
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
		return nil, s.mapped(ctx, "LeaseTable", err)
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
		response.Leases[i] = &consensusv1.LeaseEntry{
			Id: lease.ID, TtlS: lease.TTLS, RemainingTtlS: lease.RemainingTTLS, GrantedSequence: lease.GrantedSequence,
		}
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
	switch {
	case err == nil:
	case outcome.NotProposed && !s.leads(), errors.Is(err, propose.ErrLost):
		return nil, s.errNotLeader()
	default:
		return nil, s.mapped(ctx, "SetMember", err)
	}
	return &consensusv1.SetMemberResponse{}, nil
}
