package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/watch-hub/internal/topology"
)

const (
	// silenceMax is three heartbeats of a publisher and a little.
	silenceMax = 350 * time.Millisecond
	// lookEvery is how often the sources are looked at.
	lookEvery = 50 * time.Millisecond
	// probeEvery is how often the leader is asked where it stands.
	probeEvery = time.Second
	// steadyFor is how long the bus must have spoken without silence before a direct stream is let go.
	steadyFor = time.Second
)

// ChangesSubject is where the changes of a cluster are published.
func ChangesSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.changes", clusterID) }

// WatchedSubject is where hubs say, without a payload, that somebody watches: while none does, nodes gather changes for some
// milliseconds before they publish them.
func WatchedSubject(clusterID uint64) string { return fmt.Sprintf("holdfast.%016x.watched", clusterID) }

// FeederConfig is what a Feeder needs.
type FeederConfig struct {
	Name      string
	ClusterID uint64
	// Bus may be nil.
	Bus      bus.Bus
	Nodes    *Nodes
	Topology *topology.Follower
	// Receive takes in a message of whatever source; header is the bus's, or nil. It may block.
	Receive func(m *feedv1.Message, header bus.Header)
	// Gap is told when a source said or showed that messages may be missing.
	Gap func(cause string)
	Log *slog.Logger
}

// Feeder follows the feed. Make one with NewFeeder.
type Feeder struct {
	config FeederConfig
	nudge  chan struct{}

	mu sync.Mutex
	// busHeard is when the bus last spoke, busSteady since when it has without silence; zero: it does not.
	busHeard, busSteady time.Time
	// heads are the highest heads that the bus and the direct stream have told.
	busHead, directHead int64
	// probed is what the leader said last.
	probed int64
	// busLags: the bus was behind the leader when last looked at.
	busLags bool
}

// NewFeeder makes a Feeder.
func NewFeeder(config FeederConfig) *Feeder {
	return &Feeder{config: config, nudge: make(chan struct{}, 1)}
}

// Run follows until the context ends.
func (f *Feeder) Run(ctx context.Context) error {
	if f.config.Bus != nil {
		subscription, err := f.config.Bus.Subscribe(ChangesSubject(f.config.ClusterID), f.fromBus, f.busGap)
		if err != nil {
			return fmt.Errorf("source: %w", err)
		}
		defer func() { _ = subscription.Unsubscribe() }() // nothing is left to lose on it
	}
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { f.probe(ctx) })
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	started := time.Now()
	for ctx.Err() == nil {
		// A bus gets the time of a silence to say its first word.
		if !f.busSpeaks() && (f.config.Bus == nil || time.Since(started) > silenceMax || !f.config.Bus.Connected()) {
			f.direct(ctx)
		}
		select {
		case <-ticker.C:
		case <-f.nudge:
		case <-ctx.Done():
		}
	}
	return nil
}

// busSpeaks tells whether the bus alone is enough.
func (f *Feeder) busSpeaks() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.busHeard.IsZero() && time.Since(f.busHeard) <= silenceMax && !f.busLags
}

func (f *Feeder) fromBus(message bus.Message) {
	m, err := bus.Decode[feedv1.Message](message)
	if err != nil {
		f.config.Log.Warn("a message on the bus is not readable", "subject", message.Subject, "error", err)
		f.config.Gap("malformed")
		return
	}
	if m.GetClusterId() != f.config.ClusterID {
		return
	}
	f.mu.Lock()
	now := time.Now()
	if f.busSteady.IsZero() || now.Sub(f.busHeard) > silenceMax {
		f.busSteady = now
	}
	f.busHeard = now
	f.busHead = max(f.busHead, m.GetHeadRevision())
	f.mu.Unlock()
	f.config.Receive(m, message.Header)
}

// busGap looks closer at once: nothing comes from a bus that is gone.
func (f *Feeder) busGap(cause bus.Cause) {
	f.config.Gap(string(cause))
	if cause != bus.Disconnect {
		return
	}
	f.mu.Lock()
	f.busHeard, f.busSteady = time.Time{}, time.Time{}
	f.mu.Unlock()
	select {
	case f.nudge <- struct{}{}:
	default:
	}
}

// errSteady ends a direct stream because the bus speaks again; errLag one whose node is behind.
var (
	errSteady = errors.New("source: the bus speaks again")
	errLag    = errors.New("source: the node is behind the leader")
)

// direct follows one node after the other until the bus speaks again or the context ends.
func (f *Feeder) direct(ctx context.Context) {
	var lagged string
	for wait := roundFirst; ctx.Err() == nil; wait = min(2*wait, roundLongest) {
		for _, node := range f.candidates(lagged) {
			started := time.Now()
			err := f.follow(ctx, node)
			switch {
			case ctx.Err() != nil, errors.Is(err, errSteady), f.busSpeaks():
				return
			case errors.Is(err, errLag):
				lagged = node
			}
			f.config.Log.Info("left a node's feed", "endpoint", node, "error", err)
			if time.Since(started) > steadyFor {
				wait = roundFirst
				break // it was good for a while: begin with the leader again
			}
		}
		_ = clock.Pause(ctx, wait/2+rand.N(wait)) // the loop sees the end
	}
}

// candidates are the nodes to follow, the leader first and one that lagged last.
func (f *Feeder) candidates(lagged string) []string {
	state, _ := f.config.Topology.State()
	order := f.config.Nodes.order()
	if at := slices.Index(order, state.Leader); at > 0 {
		order = slices.Insert(slices.Delete(order, at, at+1), 0, state.Leader)
	}
	if at := slices.Index(order, lagged); at >= 0 && lagged != state.Leader {
		order = append(slices.Delete(order, at, at+1), lagged)
	}
	return order
}

// follow passes on what one node says.
func (f *Feeder) follow(ctx context.Context, node string) error {
	f.mu.Lock()
	f.directHead = 0
	behindSince := time.Time{}
	f.mu.Unlock()
	return f.config.Nodes.Feed(ctx, node, f.config.Name, func(m *feedv1.Message) error {
		if m.GetClusterId() != f.config.ClusterID {
			return fmt.Errorf("source: %s is of cluster %x", node, m.GetClusterId())
		}
		f.config.Receive(m, nil)
		f.mu.Lock()
		defer f.mu.Unlock()
		now := time.Now()
		f.directHead = max(f.directHead, m.GetHeadRevision())
		switch {
		case f.directHead >= f.probed:
			behindSince = time.Time{}
		case behindSince.IsZero():
			behindSince = now
		case now.Sub(behindSince) > probeEvery:
			return errLag
		}
		if !f.busLags && !f.busSteady.IsZero() && now.Sub(f.busHeard) <= silenceMax && now.Sub(f.busSteady) > steadyFor {
			return errSteady
		}
		return nil
	})
}

// probe asks the leader where it stands, again and again. What it says goes to the receiver too, which sees from it what
// it misses.
func (f *Feeder) probe(ctx context.Context) {
	for clock.Pause(ctx, probeEvery*3/4+rand.N(probeEvery/2)) == nil {
		f.mu.Lock()
		before := f.probed
		f.busLags = f.busHead < before && !f.busHeard.IsZero()
		f.mu.Unlock()
		state, _ := f.config.Topology.State()
		if state.Leader == "" {
			continue
		}
		err := f.config.Nodes.Feed(ctx, state.Leader, f.config.Name, func(m *feedv1.Message) error {
			if m.GetClusterId() == f.config.ClusterID {
				f.mu.Lock()
				f.probed = max(f.probed, m.GetHeadRevision())
				f.mu.Unlock()
				f.config.Receive(m, nil)
			}
			return errProbed
		})
		if !errors.Is(err, errProbed) {
			f.config.Log.Debug("the leader was not reached", "endpoint", state.Leader, "error", err)
		}
	}
}

var errProbed = errors.New("source: probed")
