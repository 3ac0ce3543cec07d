package calls

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
)

// protocolVersion is the version of the Calls protocol that this package speaks.
const protocolVersion = 1

// openTimeout bounds the opening of a stream while a connection is being made.
const openTimeout = time.Second

type (
	callStream = batch.Stream[*consensusv1.Call, *consensusv1.Answer]
	callHolder = batch.Holder[*consensusv1.Call, *consensusv1.Answer]
)

// node knows how to open the Calls stream to one endpoint.
type node struct {
	endpoint string
	config   *Config
}

func (n *node) open() (*callStream, error) {
	clusterID := n.config.Topology.Table().ClusterID
	conn, err := n.config.Pool.Get(n.endpoint)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(openTimeout, cancel)
	stream, err := consensusv1.NewConsensusClient(conn).Calls(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("calls: open stream to %s: %w", n.endpoint, err)
	}
	err = stream.Send(&consensusv1.CallBatch{Hello: &consensusv1.Hello{
		Version: protocolVersion, Name: n.config.Name, ClusterId: clusterID,
	}})
	if err != nil || !timer.Stop() {
		cancel()
		return nil, fmt.Errorf("calls: greet %s: %w", n.endpoint, cmp.Or(err, context.DeadlineExceeded))
	}
	return batch.Open[*consensusv1.Call, *consensusv1.Answer](
		&binding{stream: stream, clusterID: clusterID}, cancel, n.config.Limits,
		func(call *consensusv1.Call, id uint64) { call.Id = id }), nil
}

// binding turns batches into the messages of Consensus.Calls.
type binding struct {
	stream    consensusv1.Consensus_CallsClient
	clusterID uint64
	greeted   bool
}

func (b *binding) Send(calls []*consensusv1.Call, cancelled []uint64, taken uint64) error {
	return b.stream.Send(&consensusv1.CallBatch{Calls: calls, Cancelled: cancelled, Taken: taken})
}

func (b *binding) Recv() ([]*consensusv1.Answer, uint64, error) {
	message, err := b.stream.Recv()
	if err != nil {
		return nil, 0, err
	}
	if hello := message.GetHello(); hello != nil {
		switch {
		case hello.GetVersion() != protocolVersion:
			return nil, 0, fmt.Errorf("calls: node speaks protocol %d, this proxy %d", hello.GetVersion(), protocolVersion)
		case b.clusterID != 0 && hello.GetClusterId() != b.clusterID:
			return nil, 0, fmt.Errorf("calls: node belongs to cluster %016x, this proxy serves %016x",
				hello.GetClusterId(), b.clusterID)
		}
		b.greeted = true
	}
	if !b.greeted && len(message.GetAnswers()) > 0 {
		return nil, 0, errors.New("calls: answers came before the node's greeting")
	}
	return message.GetAnswers(), message.GetTaken(), nil
}
