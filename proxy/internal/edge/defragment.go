package edge

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
)

// errNoMember is the answer while no member is known.
var errNoMember = status.Error(codes.Unavailable, "holdfast: no member of the cluster is known yet")

// defragment has every member defragment its database, one after the other, so that never more than one has less of its machine for
// the others. One that fails, or is not there, does not keep the rest from it; the first error is the answer. etcd's client asks the
// members itself, by their endpoints: here an endpoint is a proxy, which is none of them. One that runs beside a node asks that node alone.
func defragment(e *Edge) func(context.Context, *calls.Call) (*consensusv1.Answer, error) {
	return func(ctx context.Context, call *calls.Call) (*consensusv1.Answer, error) {
		table := e.config.Topology.Table()
		if table.Own != "" {
			return e.config.Calls.Ask(ctx, table.Own, call)
		}
		nodes := table.Nodes
		if len(nodes) == 0 {
			return nil, errNoMember
		}
		var answer *consensusv1.Answer
		var first error
		for _, node := range nodes {
			answered, err := e.config.Calls.Ask(ctx, node.Endpoint, call)
			if ctx.Err() != nil {
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			if err != nil && first == nil {
				first = err
			}
			answer = answered
		}
		if first != nil {
			return nil, first
		}
		return answer, nil
	}
}
