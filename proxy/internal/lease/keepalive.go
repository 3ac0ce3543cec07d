package lease

import (
	"context"
	"errors"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

// inFlightMax bounds the keepalives of one client stream that wait; past it the stream is read no further.
const inFlightMax = 1024

// keepStreamState is one client's LeaseKeepAlive stream at work.
type keepStreamState struct {
	service *Service
	grpc    grpc.ServerStream
	told    func(revision int64) int64
	trace   Trace
	slots   chan struct{} // one token for each keepalive in flight
	wake    chan struct{} // capacity 1

	mu sync.Mutex
	// waiting holds, for each lease with a keepalive in flight, how many more wait behind it.
	waiting map[int64]int
	ready   []response
	err     error
	eof     bool
	ended   bool
}

type response struct{ lease, ttl, revision int64 }

// Trace begins the span of one keepalive and gives its context, for the owner, and how to end it; both are nil for one that is not
// sampled.
type Trace func() (spanContext []byte, end func(ttlS int64, err error))

// KeepAlive serves one stream. lost, if not nil, ends it with etcd's "no leader" when closed. told is given the revision that
// an answer's header is about to carry and returns the one to carry, which is no lower: an instance hears of revisions by its feed,
// and a client must not see them go back. A nil trace traces nothing.
func (s *Service) KeepAlive(stream grpc.ServerStream, lost <-chan struct{}, told func(revision int64) int64, trace Trace) error {
	ks := &keepStreamState{
		service: s, grpc: stream, told: told, trace: trace,
		slots: make(chan struct{}, inFlightMax), wake: make(chan struct{}, 1), waiting: map[int64]int{},
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer ks.end()
	// RecvMsg returns at the latest when the handler has returned, so nobody waits for this goroutine.
	go ks.receive(ctx)
	for {
		ready, err, finished := ks.take()
		for _, r := range ready {
			if err := ks.send(r); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if finished {
			return nil
		}
		select {
		case <-ks.wake:
		case <-lost:
			return rpctypes.ErrGRPCNoLeader
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (ks *keepStreamState) receive(ctx context.Context) {
	for {
		var request pb.LeaseKeepAliveRequest
		if err := ks.grpc.RecvMsg(&request); err != nil {
			ks.mu.Lock()
			if errors.Is(err, io.EOF) {
				ks.eof = true
			} else if ks.err == nil {
				ks.err = err
			}
			ks.mu.Unlock()
			ks.notify()
			return
		}
		select {
		case ks.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		ks.mu.Lock()
		behind, busy := ks.waiting[request.GetID()]
		if busy {
			ks.waiting[request.GetID()] = behind + 1
		} else {
			ks.waiting[request.GetID()] = 0
		}
		ks.mu.Unlock()
		if !busy {
			ks.renew(request.GetID()) //nolint:contextcheck // streams to instances are shared and outlive this client
		}
	}
}

// renew starts one keepalive; the next of the same lease starts when it is done, so that answers keep their order.
func (ks *keepStreamState) renew(lease int64) {
	r := &renewal{instances: ks.service.instances, lease: lease, live: ks.live}
	r.done = func(o outcome) { ks.done(lease, o) }
	if ks.trace != nil {
		span, end := ks.trace()
		if r.span = span; end != nil {
			r.done = func(o outcome) {
				end(o.ttl, o.err)
				ks.done(lease, o)
			}
		}
	}
	if ks.service.instances.ready(lease) {
		r.attempt()
		return
	}
	// Opening a stream may take its time, and the client's other leases must not wait for it.
	go r.attempt()
}

func (ks *keepStreamState) live() bool {
	ks.mu.Lock()
	defer ks.mu.Unlock()
	return !ks.ended
}

func (ks *keepStreamState) done(lease int64, o outcome) {
	ks.mu.Lock()
	if o.err != nil {
		if ks.err == nil {
			ks.err = status.Error(codes.Unavailable, "etcdserver: no lease-service is reachable")
		}
		ks.mu.Unlock()
		ks.notify()
		return
	}
	ks.ready = append(ks.ready, response{lease, o.ttl, o.revision})
	behind := ks.waiting[lease]
	if behind > 0 {
		ks.waiting[lease] = behind - 1
	} else {
		delete(ks.waiting, lease)
	}
	ks.mu.Unlock()
	ks.notify()
	if behind > 0 {
		// Not here: this is the goroutine of a stream's answers, and an attempt may block.
		go ks.renew(lease)
	}
}

// take gives the responses that are ready, then the error that ends the stream; finished says that the client has closed its
// side and everything is answered.
func (ks *keepStreamState) take() (ready []response, err error, finished bool) { //nolint:revive // the error is data here
	ks.mu.Lock()
	defer ks.mu.Unlock()
	ready, ks.ready = ks.ready, nil
	return ready, ks.err, ks.eof && len(ks.waiting) == 0
}

func (ks *keepStreamState) send(r response) error {
	table := ks.service.topology.Table()
	header := wire.Header{ClusterID: table.ClusterID, MemberID: table.Leader, Revision: ks.told(r.revision), Term: table.Term}
	err := ks.grpc.SendMsg(&wire.Frame{Data: wire.KeepAliveResponse(header, r.lease, r.ttl)})
	<-ks.slots
	return err
}

func (ks *keepStreamState) notify() {
	select {
	case ks.wake <- struct{}{}:
	default:
	}
}

func (ks *keepStreamState) end() {
	ks.mu.Lock()
	ks.ended = true
	ks.mu.Unlock()
}
