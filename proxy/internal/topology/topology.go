// Package topology keeps the routing table true: it announces the proxy to every consensus node it knows of, over one Join
// stream each, and follows what they say of members, leader, hubs and the lease view.
//
// It promises that Table never blocks and always gives the newest table, that Changed is closed at every change, and that
// members are joined and left as the member list changes, without a restart. A node of another cluster never enters the
// table. It asks its caller to run Run for as long as the table is used.
package topology

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/upstream"
)

// Waits between attempts to join a node that cannot be reached.
const (
	rejoinShortest = 50 * time.Millisecond
	rejoinLongest  = time.Second
)

// silenceMax is how long a node may say nothing before it counts as unreachable; it says something every second. A network
// that drops packets ends no stream, and by the pings of the connection alone a lost leader would count for 13 s.
const silenceMax = 3 * time.Second

var errSilent = errors.New("nothing was heard for too long")

// Config is what a Follower needs.
type Config struct {
	// Own is the host:port of the node in whose process the proxy runs, if any.
	Own string
	// Endpoints are the peer URLs that were configured, in order of preference.
	Endpoints []string
	// Name of this proxy, and the run of its process.
	Name string
	Run  uint64
	Pool *upstream.Pool
	Log  *slog.Logger
}

// Follower holds the table. Its methods may be called from any goroutine.
type Follower struct {
	config Config
	log    *slog.Logger

	mu     sync.Mutex
	state  *routing.State
	joined map[string]context.CancelFunc
	// leaderless is since when no leader is known; zero while there is one.
	leaderless time.Time

	now atomic.Pointer[moment]
	// resync tells Run that the endpoints to join may have changed.
	resync chan struct{}
}

// moment is a table and the channel that is closed when it is no longer the newest.
type moment struct {
	table   *routing.Table
	changed chan struct{}
}

// New makes a Follower with an empty table.
func New(config Config) *Follower {
	f := &Follower{
		config: config, log: config.Log,
		state: routing.NewState(config.Endpoints), joined: map[string]context.CancelFunc{},
		resync: make(chan struct{}, 1), leaderless: time.Now(),
	}
	f.state.Own = config.Own
	f.now.Store(&moment{f.state.Table(), make(chan struct{})})
	return f
}

// Table is the newest table.
func (f *Follower) Table() *routing.Table { return f.now.Load().table }

// Changed gives the newest table and a channel that is closed when there is a newer one.
func (f *Follower) Changed() (*routing.Table, <-chan struct{}) {
	now := f.now.Load()
	return now.table, now.changed
}

// LeaderlessFor tells how long no leader has been known; 0 while there is one.
func (f *Follower) LeaderlessFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leaderless.IsZero() {
		return 0
	}
	return max(time.Since(f.leaderless), 1)
}

// Viewed takes in a lease view that a lease-service told.
func (f *Follower) Viewed(view *feedv1.View) {
	if view == nil || view.GetEpoch() <= f.Table().View.GetEpoch() {
		return
	}
	_ = f.update(func() error { f.state.Viewed(view); return nil }) // it cannot fail
}

// Run joins and follows until the context ends.
func (f *Follower) Run(ctx context.Context) {
	var joins sync.WaitGroup
	defer joins.Wait()
	for {
		f.mu.Lock()
		want := f.state.Endpoints()
		for _, endpoint := range want {
			if _, ok := f.joined[endpoint]; !ok {
				jctx, cancel := context.WithCancel(ctx)
				f.joined[endpoint] = cancel
				joins.Go(func() { f.follow(jctx, endpoint) })
			}
		}
		var left []string
		for endpoint, cancel := range f.joined {
			if !slices.Contains(want, endpoint) {
				cancel()
				delete(f.joined, endpoint)
				left = append(left, endpoint)
			}
		}
		f.mu.Unlock()
		for _, endpoint := range left {
			f.log.Debug("left a consensus endpoint", "endpoint", endpoint)
			f.config.Pool.Drop(endpoint)
		}
		select {
		case <-f.resync:
		case <-ctx.Done():
			return
		}
	}
}

// follow holds a Join stream to one endpoint, again and again.
func (f *Follower) follow(ctx context.Context, endpoint string) {
	wait := rejoinShortest
	for ctx.Err() == nil {
		started := time.Now()
		err := f.join(ctx, endpoint)
		_ = f.update(func() error { f.state.Lost(endpoint); return nil }) // it cannot fail
		if ctx.Err() != nil {
			return
		}
		if _, other := errors.AsType[*routing.OtherClusterError](err); other {
			f.log.Error("consensus endpoint refused", "endpoint", endpoint, "error", err)
		} else {
			f.log.Debug("join stream ended", "endpoint", endpoint, "error", err)
		}
		if time.Since(started) > rejoinLongest {
			wait = rejoinShortest
		}
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
		}
		wait = min(2*wait, rejoinLongest)
	}
}

func (f *Follower) join(ctx context.Context, endpoint string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := f.config.Pool.Get(endpoint)
	if err != nil {
		return err
	}
	stream, err := consensusv1.NewConsensusClient(conn).Join(ctx)
	if err != nil {
		return fmt.Errorf("topology: join %s: %w", endpoint, err)
	}
	err = stream.Send(&consensusv1.Announcement{
		Kind: consensusv1.ServiceKind_SERVICE_KIND_PROXY, Name: f.config.Name, Run: f.config.Run,
	})
	if err != nil {
		return fmt.Errorf("topology: join %s: %w", endpoint, err)
	}
	silence := time.AfterFunc(silenceMax, func() { cancel(errSilent) })
	defer silence.Stop()
	var last *consensusv1.Topology
	for {
		topology, err := stream.Recv()
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		if err != nil {
			return fmt.Errorf("topology: join %s: %w", endpoint, err)
		}
		silence.Reset(silenceMax)
		if proto.Equal(topology, last) {
			continue
		}
		last = topology
		if err := f.update(func() error { return f.state.Heard(endpoint, topology) }); err != nil {
			return err
		}
	}
}

// update changes the state and publishes the table that follows from it.
func (f *Follower) update(change func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := change(); err != nil {
		return err
	}
	table := f.state.Table()
	before := f.now.Swap(&moment{table, make(chan struct{})})
	switch {
	case table.HasLeader():
		f.leaderless = time.Time{}
	case f.leaderless.IsZero():
		f.leaderless = time.Now()
	}
	if before.table.Leader != table.Leader {
		f.log.Info("leader changed", "leader", fmt.Sprintf("%x", table.Leader), "term", table.Term)
	}
	close(before.changed)
	select {
	case f.resync <- struct{}{}:
	default:
	}
	return nil
}
