package fanout

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/holdfastdb/holdfast/proxy/internal/watch"
	"github.com/holdfastdb/holdfast/proxy/internal/wire"
)

const (
	// backlogMax is where reading stops until the client has taken responses.
	backlogMax = 4096
	// fenceRetry is the wait after a fence that failed, jittered by as much again.
	fenceRetry = 50 * time.Millisecond
	// progressPoll is how often a remembered progress request is looked at again.
	progressPoll = 50 * time.Millisecond
	// NotifyIntervalDefault is etcd's, for watches that want notices while idle.
	NotifyIntervalDefault = 10 * time.Minute
	// NotifyIntervalShortest is etcd's least setting.
	NotifyIntervalShortest = 100 * time.Millisecond
)

// Observer is told what goes on, for metrics and traces. Its methods are called often and must be cheap.
type Observer interface {
	StreamOpened()
	StreamClosed()
	// Watches is told of changes in the number of watches, and of watches off their hub because of slow clients.
	Watches(change, suspendedChange int)
	// Sent is told of each response with events before it goes out; the result is called after that. Spans are the
	// encoded span contexts of sampled writes, mostly none.
	Sent(ctx context.Context, bytes, events int, spans [][]byte) func()
}

// Config is what a Server needs.
type Config struct {
	Hubs           *Hubs
	Fencer         *Fencer
	Limits         watch.Limits
	NotifyInterval time.Duration
	Observer       Observer
	Log            *slog.Logger
}

// Server serves etcdserverpb.Watch.
type Server struct{ config Config }

// NewServer makes a Server.
func NewServer(config Config) *Server { return &Server{config: config} }

// clientStream is one client stream. Between its handler, which only waits, and the goroutine that only receives, a worker does everything
// that takes a deep stack, and is there while there is something to do: an idle stream keeps two small stacks.
type clientStream struct {
	server *Server
	grpc   grpc.ServerStream
	worker worker
	inbox  chan *wire.Frame // capacity 1: what the client asked for
	err    error            // why the worker ended the stream, once it has

	mu                 sync.Mutex
	core               *watch.Core
	watches, suspended int
	over               error // how the client's requests ended; nil while they go on
	fencing            bool  // a goroutine takes fences
	closed             bool

	ticker, poll *time.Timer // nil until needed; the worker's
	interval     time.Duration
	ticked       atomic.Bool // a progress interval has passed
}

// Serve serves one stream until the client ends it, its context ends, or lost is closed, which ends it with etcd's
// "no leader". lost may be nil.
func (s *Server) Serve(stream grpc.ServerStream, lost <-chan struct{}) error {
	cs := &clientStream{
		server: s, grpc: stream, core: watch.NewCore(s.config.Limits, s.config.Hubs.newID), inbox: make(chan *wire.Frame, 1),
	}
	cs.worker.init(cs.work)
	s.config.Observer.StreamOpened()
	defer s.config.Observer.StreamClosed()
	defer cs.close()
	// RecvMsg returns at the latest when the handler has returned, so nobody waits for this goroutine.
	go cs.receive(stream.Context())
	if lost == nil { // what a goroutine waits on takes memory too
		<-cs.worker.left
		return cs.err
	}
	select {
	case <-cs.worker.left:
		return cs.err
	case <-lost:
		return rpctypes.ErrGRPCNoLeader
	}
}

// receive takes in the client's requests as they came. It returns when they have ended, as they do with the stream's context.
func (cs *clientStream) receive(ctx context.Context) {
	var err error
	for err == nil {
		frame := &wire.Frame{}
		if err = cs.grpc.RecvMsg(frame); err != nil {
			break
		}
		select {
		case cs.inbox <- frame:
			cs.worker.wake()
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	cs.mu.Lock()
	cs.over = err
	cs.mu.Unlock()
	cs.worker.wake()
}

// request takes in what the client asked for, if it asked and has taken enough of the responses.
func (cs *clientStream) request() (asked bool, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed || cs.core.Backlog() >= backlogMax {
		return false, nil
	}
	select {
	case frame := <-cs.inbox:
		request := &pb.WatchRequest{}
		if err := proto.Unmarshal(frame.Data, request); err != nil {
			return false, status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err) // gRPC's own words
		}
		cs.admit(request)
		return true, nil
	default:
		return false, nil
	}
}

// admit takes in a request; the caller holds cs.mu.
func (cs *clientStream) admit(request *pb.WatchRequest) {
	cs.core.Request(request)
	cs.settle(false)
	if cs.core.Fences() > 0 && !cs.fencing {
		cs.fencing = true
		go cs.fence(cs.grpc.Context())
	}
	if cs.ticker == nil && request.GetCreateRequest().GetProgressNotify() {
		interval := cs.server.config.NotifyInterval
		cs.interval = interval + rand.N(interval/10+1)
		cs.ticker = time.AfterFunc(cs.interval, func() {
			cs.ticked.Store(true)
			cs.worker.wake()
		})
	}
}

// fence takes fences as long as creations wait for one. It may outlive the handler, but not by much: the context ends then.
func (cs *clientStream) fence(ctx context.Context) {
	for {
		cs.mu.Lock()
		n := cs.core.Fences()
		if n == 0 || ctx.Err() != nil {
			cs.fencing = false
			cs.mu.Unlock()
			return
		}
		cs.mu.Unlock()
		fence, err := cs.server.config.Fencer.Fence(ctx)
		if err != nil {
			cs.server.config.Log.Debug("watch waits for a fence", "error", err)
			select {
			case <-time.After(fenceRetry + rand.N(fenceRetry)):
			case <-ctx.Done():
			}
			continue
		}
		cs.server.config.Hubs.know(fence.Header.Revision)
		cs.with(false, func(c *watch.Core) { c.Fenced(n, fence) }) //nolint:contextcheck // streams to hubs are shared
	}
}

// with implements owner: f's effects go to the hubs before the lock is given back, so that they keep their order.
func (cs *clientStream) with(later bool, f func(*watch.Core)) {
	cs.mu.Lock()
	if !cs.closed {
		f(cs.core)
		cs.settle(later)
	}
	cs.mu.Unlock()
	cs.worker.wake()
}

// settle carries out effects; the caller holds cs.mu.
func (cs *clientStream) settle(later bool) {
	cs.server.config.Hubs.apply(cs, cs.core.Take(), later)
	watches, suspended := cs.core.Watches(), cs.core.Suspended()
	if watches != cs.watches || suspended != cs.suspended {
		cs.server.config.Observer.Watches(watches-cs.watches, suspended-cs.suspended)
		cs.watches, cs.suspended = watches, suspended
	}
}

// next gives the next response. Without one it says whether a progress request is remembered, and how the client's requests ended if
// they all were taken in.
func (cs *clientStream) next() (response watch.Response, ok, wanted bool, over error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if response, ok = cs.core.Next(); ok {
		cs.settle(false)
		return response, true, false, nil
	}
	if len(cs.inbox) == 0 {
		over = cs.over
	}
	return response, false, cs.core.Wanted(), over
}

// work takes in requests and writes responses until there is nothing left to do. did says that there was something, ok that the stream
// goes on.
func (cs *clientStream) work() (did, ok bool) {
	ctx := cs.grpc.Context()
	for !cs.worker.stopped() {
		if err := ctx.Err(); err != nil {
			return did, cs.end(err)
		}
		if cs.ticked.Swap(false) {
			cs.with(false, func(c *watch.Core) { c.Tick() })
			cs.ticker.Reset(cs.interval)
		}
		asked, err := cs.request()
		if err != nil {
			return did, cs.end(err)
		}
		response, found, wanted, over := cs.next()
		if found {
			err = cs.write(&response)
		} else if !asked { // what is behind fences does not keep the stream open
			err = over
		}
		switch {
		case err != nil:
			return did, cs.end(err)
		case asked || found:
			did = true
		case wanted:
			cs.lookAgain()
			return did, true
		default:
			return did, true
		}
	}
	return did, true
}

// end ends the stream with the status for err: etcd says "watch canceled" where the client went away, and nothing where it has asked
// for the end.
func (cs *clientStream) end(err error) (ok bool) {
	switch {
	case errors.Is(err, io.EOF):
	case errors.Is(err, context.Canceled):
		cs.err = rpctypes.ErrGRPCWatchCanceled
	case errors.Is(err, context.DeadlineExceeded):
		cs.err = status.FromContextError(err).Err()
	default:
		cs.err = err
	}
	return false
}

// lookAgain wakes the worker after progressPoll.
func (cs *clientStream) lookAgain() {
	if cs.poll == nil {
		cs.poll = time.AfterFunc(progressPoll, cs.worker.wake)
		return
	}
	cs.poll.Reset(progressPoll)
}

// copiedMax is the most bytes of events that are copied behind their header: up to there one buffer costs less than two.
const copiedMax = 1 << 10

func (cs *clientStream) write(response *watch.Response) error {
	frame, bytes := frameOf(response)
	if len(response.Parts) == 0 {
		return cs.grpc.SendMsg(frame)
	}
	done := cs.server.config.Observer.Sent(cs.grpc.Context(), bytes, response.Events, response.Spans)
	err := cs.grpc.SendMsg(frame)
	if done != nil {
		done()
	}
	return err
}

// frameOf puts a response together, and says how long it is.
func frameOf(response *watch.Response) (frame *wire.Frame, bytes int) {
	for _, part := range response.Parts {
		bytes += len(part)
	}
	if bytes > copiedMax {
		frame = &wire.Frame{Data: response.Head.Append(make([]byte, 0, wire.HeadBytesMax)), Shared: response.Parts}
		return frame, bytes + len(frame.Data)
	}
	data := response.Head.Append(make([]byte, 0, wire.HeadBytesMax+bytes))
	for _, part := range response.Parts {
		data = append(data, part...)
	}
	return &wire.Frame{Data: data}, len(data)
}

// close takes all watches off their hubs.
func (cs *clientStream) close() {
	cs.worker.stop()
	for _, timer := range []*time.Timer{cs.ticker, cs.poll} {
		if timer != nil {
			timer.Stop()
		}
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.core.Close()
	cs.settle(false)
	cs.closed = true
}
