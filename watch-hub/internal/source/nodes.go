package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/clock"
	"github.com/holdfastdb/holdfast/watch-hub/internal/topology"
)

// ErrCompacted says that no node that could be reached has the history any more.
var ErrCompacted = errors.New("source: compacted")

// How long a node may be silent before another is asked, and the waits between rounds over all nodes.
const (
	patience     = 2 * time.Second
	roundFirst   = 20 * time.Millisecond
	roundLongest = time.Second
)

// Nodes asks consensus nodes for what a hub misses. Whichever answers is asked first the next time; its methods may be
// called from any goroutine.
type Nodes struct {
	topology *topology.Follower
	dial     topology.Dialer

	mu    sync.Mutex
	first string
}

// NewNodes makes a Nodes that asks prefer first, if it is not empty.
func NewNodes(follower *topology.Follower, dial topology.Dialer, prefer string) *Nodes {
	return &Nodes{topology: follower, dial: dial, first: prefer}
}

// order is the nodes to ask, in order: the one that answered last, those that are joined, the rest.
func (n *Nodes) order() []string {
	state, _ := n.topology.State()
	n.mu.Lock()
	first := n.first
	n.mu.Unlock()
	order := slices.Clone(state.Joined)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, node := range state.Nodes {
		if !slices.Contains(order, node) {
			order = append(order, node)
		}
	}
	if at := slices.Index(order, first); at > 0 {
		order = slices.Insert(slices.Delete(order, at, at+1), 0, first)
	}
	return order
}

func (n *Nodes) answered(node string) {
	n.mu.Lock()
	n.first = node
	n.mu.Unlock()
}

// rounds asks each node in turn, round after round, until one does it or the context ends. A round in which nobody did and
// somebody said "compacted" ends with ErrCompacted.
func (n *Nodes) rounds(ctx context.Context, ask func(node string) error) error {
	for wait := roundFirst; ; wait = min(2*wait, roundLongest) {
		compacted := false
		for _, node := range n.order() {
			err := ask(node)
			if err == nil {
				n.answered(node)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			compacted = compacted || status.Code(err) == codes.OutOfRange
		}
		if compacted {
			return ErrCompacted
		}
		if err := clock.Pause(ctx, wait/2+rand.N(wait)); err != nil {
			return err
		}
	}
}

// History gives each the changes of (after, upTo], message by message with contiguous intervals, from whatever nodes have
// them. It returns nil when all is there, ErrCompacted, or the error of the context or of each.
func (n *Nodes) History(
	ctx context.Context, after, upTo int64, ranges []*consensusv1.KeyRange, each func(*feedv1.Message) error,
) error {
	var stop error
	for after < upTo {
		before := after
		err := n.rounds(ctx, func(node string) error {
			err := n.historyFrom(ctx, node, &after, upTo, ranges, func(m *feedv1.Message) error {
				stop = each(m)
				return stop
			})
			if stop != nil || after > before {
				err = nil // done, or the next round goes on from there
			}
			return err
		})
		if stop != nil || err != nil {
			return errors.Join(stop, err)
		}
	}
	return nil
}

// historyFrom reads from one node and moves after on.
func (n *Nodes) historyFrom(
	ctx context.Context, node string, after *int64, upTo int64, ranges []*consensusv1.KeyRange, each func(*feedv1.Message) error,
) error {
	conn, err := n.dial(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(patience, cancel)
	defer watchdog.Stop()
	stream, err := consensusv1.NewConsensusClient(conn).History(ctx, &consensusv1.HistoryRequest{
		AfterRevision: *after, UpToRevision: upTo, Ranges: ranges,
	})
	if err != nil {
		return fmt.Errorf("source: history from %s: %w", node, err)
	}
	for *after < upTo {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("source: history from %s ended at %d of %d", node, *after, upTo)
		}
		if err != nil {
			return fmt.Errorf("source: history from %s: %w", node, err)
		}
		if m.GetPreviousRevision() > *after || m.GetBodyLess() {
			return fmt.Errorf("source: history from %s has a hole after %d", node, *after)
		}
		watchdog.Stop()
		*after = max(*after, m.GetLastRevision())
		if err := each(m); err != nil {
			return err
		}
		watchdog.Reset(patience)
	}
	return nil
}

// PreviousValues looks key-values up, one for each key, empty where it is compacted.
func (n *Nodes) PreviousValues(ctx context.Context, keys []*consensusv1.KeyAt) (kvs [][]byte, err error) {
	err = n.rounds(ctx, func(node string) error {
		conn, err := n.dial(node)
		if err != nil {
			return err
		}
		bounded, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		response, err := consensusv1.NewConsensusClient(conn).PreviousValues(bounded, &consensusv1.PreviousValuesRequest{Keys: keys})
		if err != nil {
			return fmt.Errorf("source: previous values from %s: %w", node, err)
		}
		if len(response.GetKvs()) != len(keys) {
			return fmt.Errorf("source: %s gave %d previous values for %d keys", node, len(response.GetKvs()), len(keys))
		}
		kvs = response.GetKvs()
		return nil
	})
	if errors.Is(err, ErrCompacted) {
		return make([][]byte, len(keys)), nil
	}
	return kvs, err
}

// Feed gives each what a node applies from now on, until the stream breaks, is silent for too long, or each fails.
func (n *Nodes) Feed(ctx context.Context, node, name string, each func(*feedv1.Message) error) error {
	conn, err := n.dial(node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watchdog := time.AfterFunc(patience, cancel) // the first message may take a connection
	defer watchdog.Stop()
	stream, err := consensusv1.NewConsensusClient(conn).Feed(ctx, &consensusv1.FeedRequest{Name: name})
	if err != nil {
		return fmt.Errorf("source: feed of %s: %w", node, err)
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("source: feed of %s: %w", node, err)
		}
		watchdog.Stop()
		if err := each(m); err != nil {
			return err
		}
		watchdog.Reset(silenceMax)
	}
}
