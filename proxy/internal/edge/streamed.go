package edge

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
	"github.com/holdfastdb/holdfast/services/telemetry"
)

// streamed is one method of etcd's API that answers one request with a stream. The messages pass through as they are, each
// when the client has taken the one before: what lies here is one message, and gRPC's windows.
type streamed struct {
	service, name string
	method        consensusv1.Method
	classify      func(request []byte, table *routing.Table) routing.Class
	// prepare, if set, completes the call before it is made and gives the endpoints to ask; otherwise those of its class are.
	prepare func(ctx context.Context, e *Edge, call *calls.Call) (func(*routing.Table) []string, error)
}

func streams() []streamed {
	return []streamed{
		{service: serviceKV, name: "RangeStream", method: consensusv1.Method_METHOD_RANGE_STREAM, classify: classifyRange},
		{
			service: serviceMaintenance, name: "Snapshot", method: consensusv1.Method_METHOD_SNAPSHOT,
			classify: anyMember, prepare: spareLeader,
		},
	}
}

func anyMember([]byte, *routing.Table) routing.Class { return routing.Serializable }

// spareLeader has a call answered by a follower that holds everything acknowledged before it, or by the leader where there is none.
// Without a leader any member answers with what it has: then a snapshot is wanted most. A proxy's own node answers alone, for
// whoever asks it means this member.
func spareLeader(ctx context.Context, e *Edge, call *calls.Call) (func(*routing.Table) []string, error) {
	if own := e.config.Topology.Table().Own; own != "" {
		return func(*routing.Table) []string { return []string{own} }, nil
	}
	if e.config.Topology.Table().HasLeader() {
		revision, err := e.fence(ctx, call.RequireLeader)
		switch {
		case err == nil:
			call.MinRevision = max(call.MinRevision, revision)
		case ctx.Err() != nil || call.RequireLeader:
			return nil, err
		}
	}
	return (*routing.Table).Spare, nil
}

// fence asks for the revision of everything acknowledged before.
func (e *Edge) fence(ctx context.Context, requireLeader bool) (int64, error) {
	request, err := proto.Marshal(&consensusv1.FenceRequest{})
	if err != nil {
		return 0, fmt.Errorf("edge: %w", err)
	}
	answer, err := e.config.Calls.Do(ctx, &calls.Call{
		Method: consensusv1.Method_METHOD_FENCE, Class: routing.Linearizable, Request: request, RequireLeader: requireLeader,
	})
	if err != nil {
		return 0, err
	}
	return answer.GetRevision(), nil
}

// streamed makes the handler of one method.
func (e *Edge) streamed(r streamed) grpc.StreamDesc {
	counts := e.config.Metrics.method(r.service, r.name, "server_stream")
	name := r.service + "/" + r.name
	return grpc.StreamDesc{StreamName: r.name, ServerStreams: true, Handler: func(_ any, stream grpc.ServerStream) error {
		start := counts.begin()
		stream = &counted{ServerStream: stream, counts: counts}
		ctx, span := e.span(stream.Context(), name)
		call := &calls.Call{Method: r.method, RequireLeader: requireLeader(ctx)}
		if span != nil && span.SpanContext().IsSampled() {
			call.SpanContext = telemetry.EncodeSpanContext(span.SpanContext())
		}
		err := e.serveStreamed(ctx, r, call, stream)
		end(span, err)
		counts.handled(start, err)
		return err
	}}
}

func (e *Edge) serveStreamed(ctx context.Context, r streamed, call *calls.Call, stream grpc.ServerStream) error {
	request := &wire.Frame{}
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	if call.RequireLeader && !e.config.Topology.Table().HasLeader() {
		return rpctypes.ErrGRPCNoLeader
	}
	call.Request, call.Class = request.Data, r.classify(request.Data, e.config.Topology.Table())
	conn := connectionOf(ctx)
	if call.Class == routing.Serializable && conn != nil {
		call.MinRevision = conn.seen()
	}
	route := func(table *routing.Table) []string { return table.Endpoints(call.Class) }
	if r.prepare != nil {
		var err error
		if route, err = r.prepare(ctx, e, call); err != nil {
			return err
		}
	}
	return e.config.Calls.Stream(ctx, call, route, func(part *consensusv1.StreamPart) error {
		if err := stream.SendMsg(&wire.Frame{Data: part.GetResponse(), Buffers: e.config.Buffers}); err != nil {
			return err
		}
		if conn != nil {
			conn.saw(part.GetRevision())
		}
		return nil
	})
}
