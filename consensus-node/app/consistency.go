package app

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/consistency"
	"github.com/holdfastdb/holdfast/consensus-node/internal/edge"
	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
	"github.com/holdfastdb/holdfast/services/config"
	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/grpcclient"
)

// etcd's feature gates that are supported, off unless asked for, as in etcd.
const (
	gateInitialCheck = "InitialCorruptCheck"
	gateCompactHash  = "CompactHashCheck"
)

// Consistency is when the members' key spaces are compared. Everything is off by default, as in etcd: a comparison reads the whole key
// space of every member once.
type Consistency struct {
	// CheckTime is the time between the leader's comparisons; 0 is off.
	CheckTime time.Duration
	// CompactHashCheckTime is how often the leader looks whether there was a compaction to compare at, if that gate is open.
	CompactHashCheckTime time.Duration
	Gates                *config.FeatureGates
}

func newConsistency() Consistency {
	return Consistency{Gates: config.NewFeatureGates(gateInitialCheck, gateCompactHash)}
}

func (c *Consistency) declare(set *config.Set) {
	set.Group("Features", func(f *pflag.FlagSet) {
		f.DurationVar(&c.CheckTime, "corrupt-check-time", 0, "time between comparisons of all members' key spaces (0: off)")
		f.DurationVar(&c.CompactHashCheckTime, "compact-hash-check-time", time.Minute, "time between looks at compactions to compare at")
		f.Var(c.Gates, "feature-gates", "InitialCorruptCheck=true|false,CompactHashCheck=true|false (default false)")
	})
}

func (c *Consistency) check() error {
	switch {
	case c.CheckTime < 0:
		return failure.New(failure.Config, fmt.Sprintf("--corrupt-check-time is %s: it must not be negative", c.CheckTime))
	case c.CompactHashCheckTime <= 0:
		return failure.New(failure.Config, fmt.Sprintf("--compact-hash-check-time is %s: it must be more than 0", c.CompactHashCheckTime))
	}
	return nil
}

// initialCheck compares this member with the others before it takes part in anything, if it was asked to.
func (n *Node) initialCheck(ctx context.Context) error {
	if !n.cfg.Consistency.Gates.Enabled(gateInitialCheck) {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, n.cfg.limits().RequestTimeout)
	defer cancel()
	if err := consistency.New(peerHashes{n}, n.log).Initial(bounded); err != nil {
		return failure.Wrap(failure.Storage, "the data in "+n.cfg.DataDir+" cannot be served", err)
	}
	return nil
}

// checkConsistency makes the leader's comparisons until the context ends.
func (n *Node) checkConsistency(ctx context.Context) error {
	settings := &n.cfg.Consistency
	checker := consistency.New(peerHashes{n}, n.log)
	periodic, stopPeriodic := tick(settings.CheckTime, settings.CheckTime > 0)
	defer stopPeriodic()
	compacted, stopCompacted := tick(settings.CompactHashCheckTime, settings.Gates.Enabled(gateCompactHash))
	defer stopCompacted()
	for {
		check := checker.Compare
		select {
		case <-periodic:
		case <-compacted:
			check = checker.Compacted
		case <-ctx.Done():
			return nil
		}
		if n.raft.Status().Leader != n.memberID {
			continue
		}
		const steps = 3 // to confirm leadership twice and hear the others once
		bounded, cancel := context.WithTimeout(ctx, steps*n.cfg.limits().RequestTimeout)
		if err := check(bounded); err != nil && ctx.Err() == nil {
			n.log.Warn("the members could not be compared", "error", err)
		}
		cancel()
	}
}

// tick gives a ticker's channel, or one that never fires.
func tick(every time.Duration, on bool) (<-chan time.Time, func()) {
	if !on {
		return nil, func() {}
	}
	ticker := time.NewTicker(every)
	return ticker.C, ticker.Stop
}

// peerHashes is the cluster as a consistency.Checker sees it.
type peerHashes struct{ node *Node }

func (p peerHashes) Self() uint64 { return p.node.memberID }

func (p peerHashes) Own(revision int64) (consistency.Hash, error) {
	view, err := p.node.machine.Current()
	if err != nil {
		return consistency.Hash{}, err
	}
	defer view.Release()
	hash, err := view.Hash(revision)
	return consistency.Hash{Sum: hash.Hash, Revision: hash.Revision, Compact: hash.CompactRevision, Head: view.KV.Revision()}, err
}

func (p peerHashes) Now() (head, compact int64) {
	view, err := p.node.machine.Current()
	if err != nil {
		return 0, 0
	}
	defer view.Release()
	return view.KV.Revision(), view.KV.CompactRevision()
}

func (p peerHashes) Confirm(ctx context.Context) error {
	if err := p.node.Healthy(ctx); err != nil {
		return err
	}
	if p.node.raft.Status().Leader != p.node.memberID {
		return errors.New("this member does not lead any more")
	}
	return nil
}

func (p peerHashes) Raised(id uint64) bool {
	return p.node.machine.Alarms().Holds(apply.Alarm{Member: id, Type: pb.AlarmType_CORRUPT})
}

func (p peerHashes) Raise(ctx context.Context, id uint64) error {
	request := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT}
	data, err := proto.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding an alarm: %w", err)
	}
	_, err = edge.Await(ctx, p.node.packer, propose.Write{Command: &journalv1.Command{Command: &journalv1.Command_Alarm{Alarm: data}}})
	return err
}

func (p peerHashes) Others(ctx context.Context, revision int64, wait bool) []consistency.Sample {
	view, err := p.node.machine.Current()
	if err != nil {
		return nil
	}
	members := view.Members.Members()
	view.Release()
	bounded, cancel := context.WithTimeout(ctx, p.node.cfg.limits().RequestTimeout)
	defer cancel()
	samples := make([]consistency.Sample, 0, len(members))
	for _, m := range members {
		if m.ID != p.node.memberID {
			samples = append(samples, consistency.Sample{Member: m.ID})
		}
	}
	var asking sync.WaitGroup
	for i := range samples {
		asking.Go(func() {
			m, _ := memberOf(members, samples[i].Member)
			samples[i].Hash, samples[i].Err = p.ask(bounded, m, revision, wait)
		})
	}
	asking.Wait()
	return samples
}

func memberOf(members []member.Member, id uint64) (member.Member, bool) {
	for _, m := range members {
		if m.ID == id {
			return m, true
		}
	}
	return member.Member{}, false
}

// ask has one member hash its key space, over the service that it has for proxies.
func (p peerHashes) ask(ctx context.Context, m member.Member, revision int64, wait bool) (consistency.Hash, error) {
	endpoints, err := hostPorts(m.PeerURLs)
	if err != nil {
		return consistency.Hash{}, err
	}
	conn, err := grpcclient.Dial(grpcclient.Config{}, endpoints...)
	if err != nil {
		return consistency.Hash{}, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx)
	if err != nil {
		return consistency.Hash{}, err
	}
	request := &pb.HashKVRequest{Revision: revision}
	data, err := proto.Marshal(request)
	if err != nil {
		return consistency.Hash{}, fmt.Errorf("encoding a request for a hash: %w", err)
	}
	call := &consensusv1.Call{Id: 1, Method: consensusv1.Method_METHOD_HASH_KV, Request: data}
	if wait {
		call.MinRevision = revision
	}
	hello := &consensusv1.Hello{Version: edge.ProtocolVersion, Name: p.node.cfg.Name, ClusterId: p.node.clusterID}
	if err := stream.Send(&consensusv1.CallBatch{Hello: hello, Calls: []*consensusv1.Call{call}}); err != nil {
		return consistency.Hash{}, err
	}
	for {
		batch, err := stream.Recv()
		if err != nil {
			return consistency.Hash{}, err
		}
		if hello := batch.GetHello(); hello != nil && hello.GetMemberId() != m.ID {
			return consistency.Hash{}, status.Errorf(codes.FailedPrecondition, "its address is that of member %x", hello.GetMemberId())
		}
		if answers := batch.GetAnswers(); len(answers) > 0 {
			return hashIn(answers[0])
		}
	}
}

func hashIn(answer *consensusv1.Answer) (consistency.Hash, error) {
	if code := codes.Code(answer.GetCode()); code != codes.OK {
		return consistency.Hash{}, status.Error(code, answer.GetMessage())
	}
	response := &pb.HashKVResponse{}
	if err := proto.Unmarshal(answer.GetResponse(), response); err != nil {
		return consistency.Hash{}, status.Errorf(codes.Internal, "its answer is not readable: %v", err)
	}
	return consistency.Hash{
		Sum: response.GetHash(), Revision: response.GetHashRevision(), Compact: response.GetCompactRevision(),
		Head: response.GetHeader().GetRevision(),
	}, nil
}
