package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/services/credit"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
)

// stream is one proxy's stream. Its queue holds what is to be sent; the lane gives a turn for each response that the proxy has
// credit for.
type stream struct {
	id    uint64
	queue *egress.Queue
	lane  *credit.Lane[turn]
	// spoke: something was sent since it was last looked at.
	spoke atomic.Bool
}

// tellEvery is how often a proxy hears of this hub though there is nothing to tell: a network that drops packets ends no stream,
// and a proxy moves its watches away from a hub that it no longer hears.
const tellEvery = time.Second

// turn is the right to send one response.
type turn struct{}

func newStream(id uint64, limits egress.Limits) *stream {
	// One turn at a time waits in the lane: the queue is armed once.
	turns := credit.Limits{QueueItems: 1, QueueBytes: 1, BatchItems: 1, BatchBytes: 1}
	return &stream{id: id, queue: egress.New(limits), lane: credit.NewLane(turns, func(turn) int { return 0 })}
}

// arm asks for a turn if there is something to send.
func (s *stream) arm() {
	if s.queue.Arm() {
		_ = s.lane.Put(turn{}) // it refuses after the end alone
	}
}

// Watch serves one proxy.
func (e *Engine) Watch(server watchv1.Hub_WatchServer) error {
	ctx := server.Context()
	select {
	case <-e.started:
	case <-e.stopped:
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	first, err := server.Recv()
	if err != nil {
		return ended(err)
	}
	s := newStream(e.lastID.Add(1), e.config.Egress)
	if !e.post(ctx, func() { e.open(s, first.GetName()) }) {
		return status.Error(codes.Unavailable, "watch-hub: stopping")
	}
	defer e.post(context.WithoutCancel(ctx), func() { e.close(s, first.GetName()) })
	var sending sync.WaitGroup
	defer sending.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sending.Go(func() { cancel(e.send(ctx, s, server)) })
	sending.Go(func() { s.tell(ctx) })
	go func() { cancel(e.listen(ctx, s, server, first)) }() // ends with the server's context, after this returns
	select {
	case <-ctx.Done():
		return ended(context.Cause(ctx))
	case <-e.stopped:
		return status.Error(codes.Unavailable, "watch-hub: stopping")
	}
}

// ended is what a stream returns for the reason it ended.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.FromContextError(err).Err()
}

// listen takes the proxy's requests in.
func (e *Engine) listen(ctx context.Context, s *stream, server watchv1.Hub_WatchServer, request *watchv1.HubRequest) error {
	for {
		s.lane.Taken(request.GetTaken())
		if len(request.GetRegister())+len(request.GetCancel()) > 0 {
			s.lane.Received()
			asked := request
			if !e.post(ctx, func() { e.ask(s, asked) }) {
				return ctx.Err()
			}
		}
		var err error
		if request, err = server.Recv(); err != nil {
			return err
		}
	}
}

func (e *Engine) ask(s *stream, request *watchv1.HubRequest) {
	for _, r := range request.GetRegister() {
		e.core.Register(s.id, r)
	}
	for _, id := range request.GetCancel() {
		e.core.Cancel(s.id, id)
	}
}

// send sends what the proxy has credit for.
func (e *Engine) send(ctx context.Context, s *stream, server watchv1.Hub_WatchServer) error {
	for {
		batch, err := s.lane.Next(ctx)
		if err != nil {
			return err
		}
		var response *watchv1.HubResponse
		if len(batch.Items) == 0 {
			position := s.queue.Sent()
			response = &watchv1.HubResponse{LiveFrom: position, LiveTo: position, MarkAlone: true}
		} else {
			var relieved bool
			if response, relieved = s.queue.Take(); response == nil { // a turn to tell that the hub is there
				position := s.queue.Sent()
				response = &watchv1.HubResponse{LiveFrom: position, LiveTo: position}
			}
			if relieved && !e.post(ctx, func() { e.core.Relieved(s.id) }) {
				return ctx.Err()
			}
			s.arm()
		}
		response.Taken, response.HasLeader = batch.Taken, e.hasLeader.Load()
		if err := server.Send(response); err != nil {
			return fmt.Errorf("engine: send: %w", err)
		}
		s.spoke.Store(true)
	}
}

// tell asks for a turn whenever nothing was sent for a while. Whatever waits by then goes with it.
func (s *stream) tell(ctx context.Context) {
	ticker := time.NewTicker(tellEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if !s.spoke.Swap(false) {
			_ = s.lane.Put(turn{}) // it refuses while another turn waits, which does as well, and after the end
		}
	}
}

func (e *Engine) open(s *stream, name string) {
	e.config.Log.Info("proxy joined", "proxy", name, "stream", s.id)
	e.streams[s.id] = s
	e.core.Open(s.id, s.queue)
	if e.leaving {
		s.queue.Leave()
	}
	_ = s.lane.Put(turn{}) // a word at once: the proxy knows then that somebody is there
}

func (e *Engine) close(s *stream, name string) {
	e.config.Log.Info("proxy left", "proxy", name, "stream", s.id)
	s.lane.Close()
	delete(e.streams, s.id)
	e.core.Close(s.id)
}

// Drain asks every proxy to leave and waits until all have, or the context ends.
func (e *Engine) Drain(ctx context.Context) {
	select {
	case <-e.started:
	default:
		return
	}
	left := make(chan struct{})
	var look func()
	look = func() {
		if len(e.streams) == 0 {
			close(left)
			return
		}
		// Closings come through the same queue, so it is enough to look again behind them.
		go func() {
			wait(ctx, tickEvery/10, nil)
			if ctx.Err() == nil {
				e.post(ctx, look)
			}
		}()
	}
	e.post(ctx, func() {
		e.leaving = true
		for _, s := range e.streams {
			s.queue.Leave()
		}
		look()
	})
	select {
	case <-left:
	case <-e.stopped:
	case <-ctx.Done():
	}
}
