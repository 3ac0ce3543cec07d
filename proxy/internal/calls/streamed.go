package calls

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
)

// Sink takes the parts of a streamed answer in their order, and waits as long as the client does not read. Its error ends the call.
type Sink func(*consensusv1.StreamPart) error

// nodePatience is how long one of several nodes may take until its first part.
const nodePatience = 2 * time.Second

// Stream makes a call whose answer is a stream: a read, from one of the endpoints that route gives in order of preference. Until the
// first part has come it goes from one to the next for as long as Do would; from then on an error of the node is the client's.
// Each has a gRPC stream of its own, so that its receiver's pace holds up nobody else, and ends with ctx.
func (c *Client) Stream(ctx context.Context, call *Call, route func(*routing.Table) []string, sink Sink) error {
	now := time.Now()
	a := attempts{client: c, call: call, ctx: ctx, began: now, deadline: now.Add(c.config.Timeout), expired: c.expiry.begin(now)}
	tried := 0
	for {
		table, changed := c.config.Topology.Changed()
		if a.leader == 0 {
			a.leader = table.Leader
		}
		endpoints := route(table)
		a.count++
		if len(endpoints) > 0 {
			begun, err := a.stream(ctx, endpoints[tried%len(endpoints)], len(endpoints)-1-tried%len(endpoints), table.ClusterID, sink)
			if err == nil || begun || !routing.Refused(call.Class, false, status.Code(err), status.Convert(err).Message(), call.RequireLeader) {
				return err
			}
			tried++
		}
		if call.RequireLeader && call.Class != routing.Serializable && !table.HasLeader() {
			return rpctypes.ErrGRPCNoLeader
		}
		step := routing.Next(call.Class, routing.NotSent, a.count, false)
		if tried > 0 && tried < len(endpoints) {
			step.After = 0 // the next one may answer at once
		}
		if !a.wait(step.After, changed) {
			return a.overtime(table)
		}
	}
}

// stream makes one attempt. begun tells that a part has come; then the error is the client's. others is how many endpoints could be
// asked instead.
func (a *attempts) stream(parent context.Context, endpoint string, others int, clusterID uint64, sink Sink) (begun bool, err error) {
	if err := parent.Err(); err != nil {
		return true, status.FromContextError(err).Err()
	}
	conn, err := a.client.config.Pool.Get(endpoint)
	if err != nil {
		return false, rpctypes.ErrGRPCTimeoutDueToConnectionLost
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	patience := time.Until(a.deadline)
	if others > 0 {
		patience = min(patience, nodePatience)
	}
	impatience := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer impatience.Stop()
	message := a.message()
	message.TimeoutMs = uint32(min(max(patience.Milliseconds(), 1), math.MaxUint32))
	stream, err := consensusv1.NewConsensusClient(conn).Stream(ctx,
		&consensusv1.StreamCall{ClusterId: clusterID, Call: message}, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	for err == nil {
		var part *consensusv1.StreamPart
		if part, err = stream.Recv(); err != nil {
			break
		}
		if !begun && !impatience.Stop() {
			err = errSilent
			break
		}
		begun = true
		if err := sink(part); err != nil {
			return true, err
		}
	}
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return begun, a.streamError(ctx, err)
}

// errSilent ends an attempt at a node that does not begin.
var errSilent = errors.New("no answer in time")

// streamError is the error of an attempt as the client may see it: what gRPC says of a lost connection names addresses inside.
func (a *attempts) streamError(ctx context.Context, err error) error {
	if cause := a.ctx.Err(); cause != nil {
		return status.FromContextError(cause).Err()
	}
	lost := errors.Is(err, errSilent) || errors.Is(context.Cause(ctx), errSilent)
	st := status.Convert(err)
	if st.Code() == codes.Unavailable && !strings.HasPrefix(st.Message(), "etcdserver: ") || st.Code() == codes.Canceled {
		lost = true
	}
	if lost {
		return rpctypes.ErrGRPCTimeoutDueToConnectionLost
	}
	return st.Err()
}
