package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/tests/history"
)

// OpTimeout is how long a client waits for an answer before it takes the outcome as unknown.
const OpTimeout = 4 * time.Second

// Workload is all clients of one record.
type Workload struct {
	*history.Record
	begun  time.Time
	seed   uint64
	values atomic.Int64
}

// New begins a record now. Each client's chance follows from the seed and its name.
func New(seed uint64) *Workload {
	return &Workload{Record: &history.Record{}, begun: time.Now(), seed: seed}
}

// Now is the time since the beginning.
func (w *Workload) Now() time.Duration { return time.Since(w.begun) }

// value is one that is given out once.
func (w *Workload) value(client string) string {
	return fmt.Sprintf("%s-%d", client, w.values.Add(1))
}

func (w *Workload) rand(client string) *rand.Rand {
	stream := uint64(0)
	for _, c := range client {
		stream = stream*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(w.seed, stream))
}

// rest waits, and says whether to go on.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// outcome is what an error says of the operation. Only a refusal says that it was not done: the request itself was wrong,
// or the server would not take it.
func outcome(err error) history.Outcome {
	if err == nil {
		return history.Done
	}
	switch Code(err) {
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.AlreadyExists, codes.Unimplemented:
		return history.NotDone
	default:
		return history.Unknown
	}
}

// Code is the code of an error that a client of etcd gave.
func Code(err error) codes.Code {
	if etcd, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return etcd.Code()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	}
	return status.Code(err)
}

// Client is a client with a name; Conn tells its connections apart.
type Client struct {
	*clientv3.Client
	Name  string
	Conns *Connections // nil: not told apart
}

// Connections counts the connections that a client made. It is a handler for grpc.WithStatsHandler.
type Connections struct{ made, open atomic.Int64 }

// TagRPC does nothing.
func (c *Connections) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC does nothing.
func (c *Connections) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn does nothing.
func (c *Connections) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn counts.
func (c *Connections) HandleConn(_ context.Context, s stats.ConnStats) {
	switch s.(type) {
	case *stats.ConnBegin:
		c.made.Add(1)
		c.open.Add(1)
	case *stats.ConnEnd:
		c.open.Add(-1)
	}
}

// current is the number of the only connection; 0 if there is none, or more than one.
func (c *Connections) current() int64 {
	if c == nil || c.open.Load() != 1 {
		return 0
	}
	return c.made.Load()
}
