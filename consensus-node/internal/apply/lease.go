package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/lease"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

func (s *step) changed(change *feedv1.LeaseChange) {
	s.res.LeaseChanges = append(s.res.LeaseChanges, change)
}

func (s *step) putLease(id int64) {
	if l, ok := s.m.leases.Get(id); ok {
		key, value := lease.Row(l)
		s.res.Batch.put(lease.Bucket, key, value)
	}
}

func (s *step) grant(req *pb.LeaseGrantRequest) (answer, error) {
	change, err := s.m.leases.Grant(req.ID, req.TTL)
	if err != nil {
		return refused(err), nil
	}
	s.changed(change)
	s.putLease(req.ID)
	resp := &pb.LeaseGrantResponse{Header: s.header(), ID: req.ID, TTL: req.TTL}
	return s.answered(resp, resp.Header), nil
}

func (s *step) revoke(req *pb.LeaseRevokeRequest) (answer, error) {
	if err := s.revokeLease(req.ID, s.m.leases.Keys(req.ID), false); err != nil {
		return refused(err), nil
	}
	resp := &pb.LeaseRevokeResponse{Header: s.header()}
	return s.answered(resp, resp.Header), nil
}

// revokeLease removes a lease and deletes its keys, all in one revision.
func (s *step) revokeLease(id int64, keys [][]byte, expired bool) error {
	if !s.m.leases.Exists(id) {
		return rpctypes.ErrGRPCLeaseNotFound
	}
	eff := s.m.kv.DeleteKeys(keys)
	s.store(eff)
	return s.removeLeases([]int64{id}, expired, eff.Revision)
}

// removeLeases removes leases whose keys are deleted, all in one change.
func (s *step) removeLeases(ids []int64, expired bool, revision int64) error {
	change, err := s.m.leases.Revoke(ids, expired, revision)
	if err != nil {
		return err
	}
	s.changed(change)
	for _, id := range ids {
		s.res.Batch.remove(lease.Bucket, lease.RowKey(id))
	}
	return nil
}

// expire revokes those of the leases that the speaker owns, each in a revision
// of its own; those without keys, which make no revision, in one change. What
// it does not own is for it to decide anew, or for another; so is a lease that
// was granted after the decision, which was about an earlier one of the same
// id.
func (s *step) expire(cmd *journalv1.LeaseExpire) (answer, error) {
	claim := lease.Claim{Name: cmd.GetName(), Incarnation: cmd.GetIncarnation(), Epoch: cmd.GetEpoch()}
	decided := cmd.GetDecidedSequence()
	resp := &consensusv1.ExpireLeasesResponse{Outcomes: make([]consensusv1.ExpireOutcome, len(cmd.GetIds()))}
	var bare []int64 // without keys
	for i, id := range cmd.GetIds() {
		l, ok := s.m.leases.Get(id)
		switch {
		case !ok:
			resp.Outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_FOUND
		case !s.m.leases.Owns(claim, id), decided != 0 && l.GrantedSequence > decided:
			resp.Outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_NOT_OWNER
		default:
			resp.Outcomes[i] = consensusv1.ExpireOutcome_EXPIRE_OUTCOME_REVOKED
			keys := s.m.leases.Keys(id)
			if len(keys) == 0 {
				bare = append(bare, id)
			} else if err := s.revokeLease(id, keys, true); err != nil {
				return answer{}, err
			}
		}
	}
	if len(bare) > 0 {
		if err := s.removeLeases(bare, true, 0); err != nil {
			return answer{}, err
		}
	}
	resp.Sequence = s.m.leases.Sequence()
	return s.done(resp), nil
}

// checkpoint records all of the rests or none: the speaker must not believe
// that it cleared one which stands. Leases that are gone are passed over, and
// so are those of which a rest says nothing any more.
func (s *step) checkpoint(cmd *journalv1.LeaseCheckpoints) (answer, error) {
	claim := lease.Claim{Name: cmd.GetName(), Incarnation: cmd.GetIncarnation(), Epoch: cmd.GetEpoch()}
	for _, c := range cmd.GetCheckpoints() {
		l, ok := s.m.leases.Get(c.GetId())
		switch {
		case !ok:
		case !s.m.leases.Owns(claim, c.GetId()):
			return refused(lease.ErrNotOwner), nil
		case c.GetRemainingTtlS() < 0 || c.GetRemainingTtlS() > l.TTLS:
			return refused(lease.ErrRemaining), nil
		}
	}
	for _, c := range cmd.GetCheckpoints() {
		change, err := s.m.leases.Checkpoint(c.GetId(), c.GetRemainingTtlS(), cmd.GetDecidedSequence())
		if err != nil {
			continue // gone or late; the rest was checked above
		}
		s.changed(change)
		s.putLease(c.GetId())
	}
	return s.done(&consensusv1.CheckpointLeasesResponse{Sequence: s.m.leases.Sequence()}), nil
}

func (s *step) changeView(cmd *journalv1.ViewChange) (answer, error) {
	change, err := s.m.leases.ChangeView(cmd)
	if err != nil {
		return refused(err), nil
	}
	row, err := lease.ViewRow(change.GetView())
	if err != nil {
		return answer{}, err
	}
	s.changed(change)
	s.res.Batch.put(lease.ClusterBucket, []byte(lease.ViewKey), row)
	return s.done(change.GetView()), nil
}
