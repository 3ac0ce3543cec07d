package edge

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	"github.com/holdfastdb/holdfast/consensus-node/internal/raftnode"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

// memberChange is a change of the member list that somebody asks for.
type memberChange struct {
	kind    member.Kind
	context *journalv1.MemberContext
}

func (s *Server) parseMember(call *consensusv1.Call) (work, error) {
	change := &memberChange{context: &journalv1.MemberContext{}}
	to := change.context
	var err error
	switch call.GetMethod() {
	case consensusv1.Method_METHOD_MEMBER_ADD:
		var request *pb.MemberAddRequest
		if request, err = decode[pb.MemberAddRequest](call); err == nil {
			change.kind, to.Learner = member.Add, request.GetIsLearner()
			to.PeerUrls, err = checkPeerURLs(request.GetPeerURLs())
			slices.Sort(to.PeerUrls)
			to.MemberId = member.NewID(to.GetPeerUrls(), time.Now().Unix())
		}
	case consensusv1.Method_METHOD_MEMBER_UPDATE:
		var request *pb.MemberUpdateRequest
		if request, err = decode[pb.MemberUpdateRequest](call); err == nil {
			change.kind, to.MemberId = member.Update, request.GetID()
			// etcd checks nothing here, and its members end at URLs that they cannot use.
			to.PeerUrls, err = checkPeerURLs(request.GetPeerURLs())
		}
	case consensusv1.Method_METHOD_MEMBER_REMOVE:
		var request *pb.MemberRemoveRequest
		request, err = decode[pb.MemberRemoveRequest](call)
		change.kind, to.MemberId = member.Remove, request.GetID()
	default:
		var request *pb.MemberPromoteRequest
		request, err = decode[pb.MemberPromoteRequest](call)
		change.kind, to.MemberId = member.Promote, request.GetID()
	}
	return work{change: change}, err
}

// checkPeerURLs applies etcd's rules for URLs, and gives the texts without the white space around them.
func checkPeerURLs(texts []string) ([]string, error) {
	if len(texts) == 0 {
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	urls := make([]string, 0, len(texts))
	for _, text := range texts {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return nil, rpctypes.ErrGRPCMemberBadURLs
		}
		switch u.Scheme {
		case "http", "https":
			if _, _, err := net.SplitHostPort(u.Host); err != nil || u.Path != "" {
				return nil, rpctypes.ErrGRPCMemberBadURLs
			}
		case "unix", "unixs":
		default:
			return nil, rpctypes.ErrGRPCMemberBadURLs
		}
		urls = append(urls, u.String())
	}
	return urls, nil
}

// changeMembers carries out one change of the member list and answers. Only a leader does it: it alone knows how far a learner is, and
// hears of every member.
func (s *Server) changeMembers(ctx context.Context, call *consensusv1.Call, change *memberChange, reply reply) {
	bounded, cancel := context.WithTimeout(ctx, s.patience(call))
	defer cancel()
	if change.kind == member.Promote {
		reply = s.promotion(reply)
	}
	select { // raft takes one at a time
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
	case <-bounded.Done():
		reply(call, s.failed(ctx, call, rpctypes.ErrGRPCTimeout))
		return
	}
	if !s.leads() {
		reply(call, s.elsewhere(ctx, call, s.cfg.Raft.Status().Leader))
		return
	}
	if err := s.checkChange(bounded, change); err != nil {
		reply(call, s.refused(ctx, call, err))
		return
	}
	if change.kind == member.Remove && change.context.GetMemberId() == s.cfg.MemberID {
		// A leader that is to go hands over first, so that the others need no election. Whoever leads next removes it.
		if err := s.cfg.Raft.HandOver(bounded); err != nil {
			s.cfg.Logger.Info("leadership was not handed over before this member is removed", "error", err)
		}
		if !s.leads() {
			reply(call, s.elsewhere(ctx, call, s.cfg.Raft.Status().Leader))
			return
		}
	}
	switch outcome := s.proposeChange(bounded, change); {
	case outcome.NotProposed:
		reply(call, s.refused(ctx, call, outcome.Err))
	case outcome.Err != nil:
		reply(call, s.failed(ctx, call, outcome.Err))
	default:
		s.cfg.Logger.Info("member list changed", "change", change.kind.String(), "member", change.context.GetMemberId())
		reply(call, s.applied(call, outcome))
	}
}

// proposeChange proposes the change until raft takes it: it refuses one until it knows that the last one, or whatever was on its way when
// this node began to lead, is applied.
func (s *Server) proposeChange(ctx context.Context, change *memberChange) propose.Outcome {
	const shortest, longest = time.Millisecond, 100 * time.Millisecond
	for wait := shortest; ; wait = min(2*wait, longest) {
		outcome := s.cfg.Packer.Change(ctx, func(id uint64) (raftpb.ConfChangeI, error) {
			change.context.Id = id
			return member.ConfChange(change.kind, change.context)
		})
		if !errors.Is(outcome.Err, raftnode.ErrConfChangeRefused) {
			return outcome
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			outcome.Err = rpctypes.ErrGRPCTimeout
			return outcome
		}
	}
}

// checkChange makes etcd's checks before a change is proposed. What remains (whether the member is there, whether a URL is taken) is
// checked when it is applied.
func (s *Server) checkChange(ctx context.Context, change *memberChange) error {
	view, err := s.cfg.Node.Current()
	if err != nil {
		return err
	}
	list := view.Members
	view.Release()
	if change.kind == member.Promote {
		if err := s.checkLearner(ctx, change.context.GetMemberId()); err != nil {
			return err
		}
	}
	if !s.cfg.Limits.StrictReconfig {
		return nil
	}
	if err := list.CheckQuorum(change.kind, change.context); err != nil {
		return err
	}
	switch change.kind {
	case member.Add:
		return s.checkHealthyToAdd(list)
	case member.Remove:
		return s.checkHealthyToRemove(list, change.context.GetMemberId())
	case member.Promote, member.Update:
	}
	return nil
}

// checkLearner refuses the promotion of a member that has less than nine tenths of the leader's log.
func (s *Server) checkLearner(ctx context.Context, id uint64) error {
	peers, err := s.cfg.Raft.Peers(ctx)
	if err != nil {
		return err
	}
	if peers == nil {
		return &raftnode.NotLeaderError{Leader: s.cfg.Raft.Status().Leader}
	}
	learner, ok := peers[id]
	if !ok {
		return rpctypes.ErrGRPCMemberNotFound
	}
	const readyShare = 0.9
	if float64(learner.Match) < readyShare*float64(peers[s.cfg.MemberID].Match) {
		return rpctypes.ErrGRPCLearnerNotReady
	}
	return nil
}

// checkHealthyToAdd refuses a new member unless enough voters have been connected to make a quorum with it being down. One voter alone may
// always grow.
func (s *Server) checkHealthyToAdd(list *member.List) error {
	voters, _ := list.Voters()
	if voters > 1 && s.connected(list) < (voters+1)/2+1 {
		return rpctypes.ErrGRPCUnhealthy
	}
	return nil
}

// checkHealthyToRemove refuses the removal of a voter that is up if too few others have been connected. One that is down is no part of
// the quorum that is at work.
func (s *Server) checkHealthyToRemove(list *member.List, id uint64) error {
	if m, _ := list.Get(id); m.Learner || id != s.cfg.MemberID && s.cfg.ActiveSince(id).IsZero() {
		return nil
	}
	voters, _ := list.Voters()
	if s.connected(list)-1 < (voters-1)/2+1 {
		return rpctypes.ErrGRPCUnhealthy
	}
	return nil
}

// connected counts the voters that have been connected for long enough, this member among them.
func (s *Server) connected(list *member.List) int {
	n := 0
	for _, m := range list.Members() {
		since := s.cfg.ActiveSince(m.ID)
		if !m.Learner && (m.ID == s.cfg.MemberID || !since.IsZero() && time.Since(since) > s.cfg.Limits.HealthInterval) {
			n++
		}
	}
	return n
}
