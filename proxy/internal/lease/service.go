package lease

import (
	"context"
	"log/slog"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
)

// RemovalTimeDefault is how long an instance that is not heard of keeps its right to acknowledge keepalives, as the
// consensus tier sets it: after that long without being reached an owner acknowledges nothing.
const RemovalTimeDefault = 2 * time.Second

// Caller makes calls to the consensus tier; calls.Client is one.
type Caller interface {
	Do(ctx context.Context, call *calls.Call) (*consensusv1.Answer, error)
}

// Service serves the Lease calls that take more than one step.
type Service struct {
	instances *Instances
	topology  *topology.Follower
	caller    Caller
	removal   time.Duration
	log       *slog.Logger
}

// NewService makes a Service; removal is the removal time, RemovalTimeDefault unless the cluster says otherwise.
func NewService(
	instances *Instances, follower *topology.Follower, caller Caller, removal time.Duration, log *slog.Logger,
) *Service {
	return &Service{instances: instances, topology: follower, caller: caller, removal: removal, log: log}
}

// TimeToLive joins the keys and the granted TTL from the consensus tier with the rest of the time from the owner.
func (s *Service) TimeToLive(ctx context.Context, call *calls.Call) (*consensusv1.Answer, error) {
	answer, err := s.caller.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	var response pb.LeaseTimeToLiveResponse
	if err := proto.Unmarshal(answer.GetResponse(), &response); err != nil {
		return nil, status.Error(codes.Internal, "proxy: malformed answer of the consensus node")
	}
	if response.GetTTL() == -1 {
		return answer, nil
	}
	if response.TTL, err = s.remaining(ctx, response.GetID()); err != nil {
		return nil, err
	}
	if response.GetTTL() == -1 {
		// It went between the two reads: etcd's answer for a lease that does not exist has nothing else in it.
		response.GrantedTTL, response.Keys = 0, nil
	}
	encoded, err := proto.Marshal(&response)
	if err != nil {
		return nil, status.Error(codes.Internal, "proxy: "+err.Error())
	}
	return &consensusv1.Answer{Response: encoded, Revision: answer.GetRevision()}, nil
}

// remaining asks the owner for the rest of a lease in seconds, -1 if the lease is gone.
func (s *Service) remaining(ctx context.Context, lease int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.removal)
	defer cancel()
	unreached := status.Error(codes.Unavailable, "etcdserver: the owner of the lease is not reachable")
	for {
		to, err := s.instances.owner(lease)
		if err != nil {
			return 0, unreached
		}
		if rest := s.remainingAt(ctx, to, lease); rest != nil {
			switch rest.GetOutcome() { //nolint:exhaustive // the others are asked again
			case leasev1.Outcome_OUTCOME_RENEWED:
				return rest.GetRemainingTtlS(), nil
			case leasev1.Outcome_OUTCOME_NOT_FOUND:
				return -1, nil
			}
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return 0, unreached
		}
	}
}

func (s *Service) remainingAt(ctx context.Context, to instance, lease int64) *leasev1.Remaining {
	keeper, err := s.instances.keeper(to)
	if err != nil {
		return nil
	}
	answer, err := keeper.Remaining(ctx, &leasev1.RemainingRequest{Leases: []int64{lease}})
	if err != nil {
		return nil
	}
	for _, rest := range answer.GetRemaining() {
		if rest.GetLease() == lease {
			return rest
		}
	}
	return nil
}

func malformed(err error) error {
	return status.Error(codes.Internal, "grpc: error unmarshalling request: "+err.Error())
}
