package watchsim

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

// client keeps some watches alive on one stream after the other.
type client struct {
	sim  *sim
	name string
	rng  *rand.Rand // of its sending side
	// slow: it stops reading now and then.
	slow bool
	made int

	mu      sync.Mutex
	wants   []*watch
	session *session
}

// session is one stream.
type session struct {
	client *client
	proxy  *proxyProcess
	stream pb.Watch_WatchClient
	sends  chan func() *pb.WatchRequest // run in order, by the sending side

	// guarded by client.mu
	creating []*watch
	log      []string
	byID     map[int64]*watch
	// compacted are ids of watches that ended so, whose cancellation was on its way: it is answered too, as in etcd.
	compacted map[int64]bool
}

func (c *client) run(ctx context.Context) {
	for range 2 + c.rng.IntN(4) {
		c.wants = append(c.wants, c.newWatch())
	}
	for ctx.Err() == nil {
		if proxy := c.sim.anyProxy(c.rng); proxy != nil {
			c.once(ctx, proxy)
		}
		pause(ctx, time.Duration(c.rng.Int64N(int64(200*time.Millisecond))))
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// newWatch asks for something of chance.
func (c *client) newWatch() *watch {
	c.made++
	w := &watch{
		name: fmt.Sprintf("%s/%d", c.name, c.made), key: fmt.Sprintf("k%02d", c.rng.IntN(keysMax)),
		previous: c.rng.IntN(2) == 0, fragment: c.rng.IntN(4) == 0, notify: c.rng.IntN(3) == 0,
		noPut: c.rng.IntN(6) == 0, noDelete: c.rng.IntN(6) == 0,
	}
	switch c.rng.IntN(5) {
	case 0:
		w.key, w.end = "k", "l"
	case 1:
		w.end = "\x00"
	case 2:
		w.end = fmt.Sprintf("k%02d", keysMax/2+c.rng.IntN(keysMax))
		w.refused = w.end <= w.key
	}
	head := c.sim.world.head()
	switch c.rng.IntN(12) {
	case 0, 1, 2:
		w.next = max(1, head-c.rng.Int64N(600))
	case 3:
		w.next = head + c.rng.Int64N(150)
	case 4:
		w.next, w.refused = -1-c.rng.Int64N(math.MaxInt64), true
	case 5:
		w.next = math.MaxInt64 - c.rng.Int64N(2)
	}
	return w
}

// once holds one stream until it ends.
func (c *client) once(ctx context.Context, proxy *proxyProcess) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///proxy", grpc.WithContextDialer(proxy.listener.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// Fixed windows, so that a client that does not read is felt.
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		c.sim.t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return
	}
	s := &session{client: c, proxy: proxy, stream: stream, sends: make(chan func() *pb.WatchRequest, 1000), byID: map[int64]*watch{}, compacted: map[int64]bool{}}
	c.mu.Lock()
	c.session = s
	for _, w := range c.wants {
		s.create(w)
	}
	c.mu.Unlock()
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sending.Go(func() { s.send(ctx) })
	err = s.receive(ctx)
	if ctx.Err() == nil && !proxy.dead.Load() {
		c.sim.t.Errorf("%s: the stream ended though its proxy lives: %v", c.name, err)
	}
	c.mu.Lock()
	c.session = nil
	c.mu.Unlock()
}

// create asks for a watch again; the caller holds client.mu.
func (s *session) create(w *watch) {
	s.sends <- func() *pb.WatchRequest {
		w.asked, w.header, w.parts, w.cancelling = s.client.sim.world.head(), 0, nil, false
		s.creating = append(s.creating, w)
		request := &pb.WatchCreateRequest{
			Key: []byte(w.key), RangeEnd: []byte(w.end), StartRevision: w.next, PrevKv: w.previous, Fragment: w.fragment, ProgressNotify: w.notify,
		}
		if w.noPut {
			request.Filters = append(request.Filters, pb.WatchCreateRequest_NOPUT)
		}
		if w.noDelete {
			request.Filters = append(request.Filters, pb.WatchCreateRequest_NODELETE)
		}
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}
	}
}

// ask is a progress request.
func (s *session) ask() {
	s.sends <- func() *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	}
}

// send sends what is asked for, and now and then something of its own.
func (s *session) send(ctx context.Context) {
	c := s.client
	for {
		select {
		case next := <-s.sends:
			c.mu.Lock()
			request := next()
			c.mu.Unlock()
			if request != nil && s.stream.Send(request) != nil {
				return
			}
		case <-time.After(time.Duration(1 + c.rng.Int64N(int64(time.Second)))):
			if c.sim.calm.Load() {
				continue
			}
			c.mu.Lock()
			switch n := c.rng.IntN(10); {
			case n < 5:
				s.ask()
			case n < 6:
				s.cancelOne()
			}
			c.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

// cancelOne cancels a watch and wants another in its place; the caller holds client.mu.
func (s *session) cancelOne() {
	c := s.client
	if len(c.wants) == 0 {
		return
	}
	at := c.rng.IntN(len(c.wants))
	w := c.wants[at]
	if s.byID[w.id] != w || w.cancelling {
		return
	}
	w.cancelling = true
	s.sends <- func() *pb.WatchRequest {
		return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: w.id}}}
	}
	c.wants[at] = c.newWatch()
	s.create(c.wants[at])
}

// receive takes in what comes, as fast as the client reads.
func (s *session) receive(ctx context.Context) error {
	c := s.client
	rng := rand.New(rand.NewPCG(c.sim.seed, uint64(len(c.name))))
	for {
		if c.slow && !c.sim.calm.Load() && rng.IntN(30) == 0 {
			pause(ctx, time.Duration(rng.Int64N(int64(5*time.Second))))
		}
		r, err := s.stream.Recv()
		if err != nil {
			return err
		}
		c.mu.Lock()
		w, err := s.took(r)
		s.log = append(s.log, brief(r))
		c.mu.Unlock()
		if err != nil {
			c.sim.t.Logf("before it: %s", strings.Join(s.log[max(0, len(s.log)-20):], "; "))
			c.sim.t.Errorf("%v of %s: %v", w, s.proxy.name, err)
			return err
		}
	}
}

// brief is a response in short.
func brief(r *pb.WatchResponse) string {
	b := fmt.Sprintf("%d at %d", r.GetWatchId(), r.GetHeader().GetRevision())
	if r.GetCreated() || r.GetCanceled() {
		b += fmt.Sprintf(" created %v canceled %v compact %d", r.GetCreated(), r.GetCanceled(), r.GetCompactRevision())
	}
	if n := len(r.GetEvents()); n > 0 {
		b += fmt.Sprintf(" events %d..%d", r.GetEvents()[0].GetKv().GetModRevision(), r.GetEvents()[n-1].GetKv().GetModRevision())
	}
	return b
}

// took checks one response. The caller holds client.mu.
func (s *session) took(r *pb.WatchResponse) (*watch, error) {
	world := s.client.sim.world
	w := s.byID[r.GetWatchId()]
	switch {
	case r.GetCreated():
		return s.created(r)
	case r.GetWatchId() == -1:
		for _, w := range s.byID {
			if !w.cancelling {
				if err := w.told(world, r.GetHeader().GetRevision(), true); err != nil {
					return w, err
				}
			}
		}
		s.client.sim.saw("common notices")
		return nil, nil
	case w == nil && r.GetCanceled() && s.compacted[r.GetWatchId()]:
		return nil, nil
	case w == nil:
		return nil, fmt.Errorf("a response for a watch that is not there: %v", r)
	case r.GetCanceled():
		delete(s.byID, w.id)
		if r.GetCompactRevision() > 0 {
			s.client.sim.saw("compacted")
			s.compacted[r.GetWatchId()] = w.cancelling
			if !w.cancelling {
				s.create(w)
			}
			return w, w.ended(world, r.GetCompactRevision())
		}
		if !w.cancelling {
			return w, fmt.Errorf("cancelled though nobody asked: %v", r)
		}
		return w, nil
	case len(r.GetEvents()) == 0:
		s.client.sim.saw("notices")
		return w, w.told(world, r.GetHeader().GetRevision(), false)
	}
	s.client.sim.saw("events")
	return w, w.took(world, r, proto.Size(r))
}

// created checks the answer to the oldest creation.
func (s *session) created(r *pb.WatchResponse) (*watch, error) {
	if len(s.creating) == 0 {
		return nil, fmt.Errorf("created without a request: %v", r)
	}
	w := s.creating[0]
	s.creating = s.creating[1:]
	switch {
	case w.refused:
		if !r.GetCanceled() || r.GetWatchId() != -1 {
			return w, fmt.Errorf("not refused: %v", r)
		}
		c := s.client
		c.wants = slices.DeleteFunc(c.wants, func(other *watch) bool { return other == w })
		return w, nil
	case r.GetCanceled() || s.byID[r.GetWatchId()] != nil:
		return w, fmt.Errorf("not created: %v", r)
	case r.GetHeader().GetRevision() < w.asked:
		return w, fmt.Errorf("created at %d, but %d was there when it was asked for", r.GetHeader().GetRevision(), w.asked)
	}
	w.id, w.header = r.GetWatchId(), r.GetHeader().GetRevision()
	if w.next == 0 {
		w.next = w.header + 1
	}
	s.byID[w.id] = w
	return w, nil
}

// behind is a watch that has not got everything up to a revision, and nil if there is none; noticed: it must have been told
// that it has.
func (c *client) behind(upTo int64, noticed bool) *watch {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wants {
		switch {
		case w.refused || w.cancelling || w.next > upTo+1:
		case w.next == 0, w.missing(c.sim.world, upTo) > 0, noticed && w.bookmark < upTo:
			return w
		}
	}
	return nil
}
