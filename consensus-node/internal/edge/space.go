package edge

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/quota"
	"github.com/holdfastdb/holdfast/consensus-node/internal/store"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// Space is what writes are checked against before they are proposed. Its methods may be called from any goroutine.
type Space struct {
	// Store is the database that must not outgrow QuotaBytes, which is negative for no quota.
	Store      *store.Store
	QuotaBytes int64
	diskFull   atomic.Bool
}

// SetDiskFull tells whether the disk has room for a further segment of the log.
func (s *Space) SetDiskFull(full bool) { s.diskFull.Store(full) }

// Full tells whether not even the smallest write fits any more.
func (s *Space) Full() bool { return s.usage().Full(s.QuotaBytes) }

// DiskFull tells what SetDiskFull was told.
func (s *Space) DiskFull() bool { return s.diskFull.Load() }

func (s *Space) fits(cost int64) bool { return s.usage().Fits(s.QuotaBytes, cost) }

func (s *Space) usage() quota.Usage {
	pending := s.Store.Pending()
	return quota.Usage{
		InUse: s.Store.SizeInUse() + pending, File: s.Store.Size() + pending, FileMax: s.Store.SizeMax(), DiskFull: s.DiskFull(),
	}
}

// errFull says that a write does not fit on this member, which is to be told to everybody before the write gets etcd's error.
var errFull = errors.New("edge: the write does not fit")

// checkSpace refuses a write of a cost that does not fit, before anything else is looked at, as etcd does. What this node would
// not propose anyway is refused elsewhere.
func (s *Server) checkSpace(cost int64) error {
	if s.cfg.Space.fits(cost) || !s.leads() {
		return nil
	}
	return errFull
}

// refuseFull answers a write that does not fit, after the alarm that tells everybody.
func (s *Server) refuseFull(ctx context.Context, call *consensusv1.Call, reply reply) {
	s.noSpace.raise(s, func(error) { reply(call, s.failed(ctx, call, rpctypes.ErrGRPCNoSpace)) })
}

// RaiseNoSpace raises this member's NOSPACE alarm by a proposal of this node's, which must lead, and waits for it. If it is raised
// already nothing happens.
func (s *Server) RaiseNoSpace(ctx context.Context) error {
	raised := make(chan error, 1)
	s.noSpace.raise(s, func(err error) { raised <- err })
	select {
	case err := <-raised:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NoSpaceRaised tells whether this member's NOSPACE alarm is raised, as far as this node has applied.
func (s *Server) NoSpaceRaised() bool {
	view, err := s.cfg.Node.Current()
	if err != nil {
		return false
	}
	defer view.Release()
	for _, alarm := range view.Alarms {
		if alarm.Type == pb.AlarmType_NOSPACE && alarm.Member == s.cfg.MemberID {
			return true
		}
	}
	return false
}

// NoSpaceRequest is the request that raises a member's alarm.
func NoSpaceRequest(member uint64) *pb.AlarmRequest {
	return &pb.AlarmRequest{MemberID: member, Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
}

// raising is the one proposal of an alarm that is under way, for all who wait for it.
type raising struct {
	mu      sync.Mutex
	waiting []func(error)
}

// raise calls done once the alarm is raised, or could not be.
func (r *raising) raise(s *Server, done func(error)) {
	if s.NoSpaceRaised() {
		done(nil)
		return
	}
	r.mu.Lock()
	r.waiting = append(r.waiting, done)
	first := len(r.waiting) == 1
	r.mu.Unlock()
	if !first {
		return
	}
	request, err := proto.Marshal(NoSpaceRequest(s.cfg.MemberID))
	if err != nil {
		r.end(err)
		return
	}
	s.cfg.Packer.Submit(propose.Write{
		Command: &journalv1.Command{Command: &journalv1.Command_Alarm{Alarm: request}},
		Done:    func(outcome propose.Outcome) { r.end(outcome.Err) },
	})
}

func (r *raising) end(err error) {
	r.mu.Lock()
	waiting := r.waiting
	r.waiting = nil
	r.mu.Unlock()
	for _, done := range waiting {
		done(err)
	}
}
