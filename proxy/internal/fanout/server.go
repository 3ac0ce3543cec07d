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
	"google.golang.org/grpc/status"

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

// clientStream is one client stream at work.
type clientStream struct {
	server *Server
	grpc   grpc.ServerStream
	wake   chan struct{} // capacity 1: there may be something to send
	room   chan struct{} // capacity 1: the backlog has shrunk

	mu   sync.Mutex
	core *watch.Core
	// fencing: a goroutine takes fences.
	fencing            bool
	watches, suspended int
	tasks              sync.WaitGroup
	ticked             atomic.Bool // a progress interval has passed
	closed             bool
}

// Serve serves one stream until the client ends it, its context ends, or lost is closed, which ends it with etcd's
// "no leader". lost may be nil.
func (s *Server) Serve(stream grpc.ServerStream, lost <-chan struct{}) error {
	cs := &clientStream{
		server: s, grpc: stream, wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		core: watch.NewCore(s.config.Limits, s.config.Hubs.newID),
	}
	s.config.Observer.StreamOpened()
	defer s.config.Observer.StreamClosed()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cs.close()
	defer cancel()
	received := make(chan error, 1)
	// RecvMsg returns at the latest when the handler has returned, so nobody waits for this goroutine.
	go func() {
		received <- cs.receive(ctx)
		cs.notify()
	}()
	return cs.send(ctx, received, lost)
}

// receive takes in the client's requests.
func (cs *clientStream) receive(ctx context.Context) error {
	for {
		request := &pb.WatchRequest{}
		if err := cs.grpc.RecvMsg(request); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		for !cs.request(ctx, request) {
			select {
			case <-cs.room:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// request passes a request on, or returns false if the client must first take responses.
func (cs *clientStream) request(ctx context.Context, request *pb.WatchRequest) bool {
	cs.mu.Lock()
	full := cs.core.Backlog() >= backlogMax
	if !full && !cs.closed {
		cs.core.Request(request)
		cs.settle(false) //nolint:contextcheck // streams to hubs are shared and outlive this client
		if cs.core.Fences() > 0 && !cs.fencing {
			cs.fencing = true
			cs.tasks.Go(func() { cs.fence(ctx) })
		}
	}
	cs.mu.Unlock()
	cs.notify()
	return !full
}

// fence takes fences as long as creations wait for one.
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
	cs.notify()
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

func (cs *clientStream) notify() {
	select {
	case cs.wake <- struct{}{}:
	default:
	}
}

// next gives the next response, and whether a progress request is remembered.
func (cs *clientStream) next() (response watch.Response, ok, wanted bool) {
	cs.mu.Lock()
	response, ok = cs.core.Next()
	if ok {
		cs.settle(false)
	}
	wanted = cs.core.Wanted()
	room := cs.core.Backlog() < backlogMax
	cs.mu.Unlock()
	if room {
		select {
		case cs.room <- struct{}{}:
		default:
		}
	}
	return response, ok, wanted
}

// send writes responses until the stream ends. It waits on one channel alone, which everything that may end or change something
// writes to: with thousands of streams, waiting on several costs more than the delivery.
func (cs *clientStream) send(ctx context.Context, received <-chan error, lost <-chan struct{}) error {
	interval := cs.server.config.NotifyInterval
	interval += rand.N(interval/10 + 1)
	ticker := time.AfterFunc(interval, func() {
		cs.ticked.Store(true)
		cs.notify()
	})
	defer ticker.Stop()
	defer context.AfterFunc(ctx, cs.notify)()
	poll := time.AfterFunc(progressPoll, cs.notify)
	defer poll.Stop()
	for {
		response, ok, wanted := cs.next() //nolint:contextcheck // streams to hubs are shared
		if ok {
			if err := cs.write(ctx, &response); err != nil {
				return err
			}
		}
		if err := over(ctx, lost); err != nil {
			return err
		}
		if ok {
			continue
		}
		select { // behind the responses that wait
		case err := <-received:
			return ended(err)
		default:
		}
		if wanted {
			poll.Reset(progressPoll)
		}
		cs.wait(lost)
		if cs.ticked.Swap(false) {
			cs.with(false, func(c *watch.Core) { c.Tick() }) //nolint:contextcheck // streams to hubs are shared
			ticker.Reset(interval)
		}
	}
}

// wait waits for something to look at. lost is nil where the client does not require a leader.
func (cs *clientStream) wait(lost <-chan struct{}) {
	if lost == nil {
		<-cs.wake
		return
	}
	select {
	case <-cs.wake:
	case <-lost:
	}
}

// over is the error with which a stream ends whatever waits for it, or nil.
func over(ctx context.Context, lost <-chan struct{}) error {
	select {
	case <-lost:
		return rpctypes.ErrGRPCNoLeader
	default:
	}
	if err := ctx.Err(); err != nil {
		return ended(err)
	}
	return nil
}

// copiedMax is the most bytes of events that are copied behind their header: up to there one buffer costs less than two.
const copiedMax = 1 << 10

func (cs *clientStream) write(ctx context.Context, response *watch.Response) error {
	frame, bytes := frameOf(response)
	if len(response.Parts) == 0 {
		return cs.grpc.SendMsg(frame)
	}
	done := cs.server.config.Observer.Sent(ctx, bytes, response.Events, response.Spans)
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

// ended is the status of a stream that ended: etcd says "watch canceled" where the client went away.
func ended(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return rpctypes.ErrGRPCWatchCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	default:
		return err
	}
}

// close takes all watches off their hubs.
func (cs *clientStream) close() {
	cs.mu.Lock()
	cs.core.Close()
	cs.settle(false)
	cs.closed = true
	cs.mu.Unlock()
	cs.tasks.Wait()
}
