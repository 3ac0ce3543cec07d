package differential

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
)

// WatchRound opens one watch stream on each system, creates the same watches on both between the same writes, and compares
// what they were told. Rounds of one Pair share a Generator and its history.
type WatchRound struct {
	pair       *Pair
	gen        *Generator
	ours, etcd *watchLog
	asked      []string // for the report
	startMax   int64    // the highest start revision asked for
}

// settleTimeout bounds how long a system may take to tell its watches everything.
const settleTimeout = 15 * time.Second

// RunWatchRound runs one round of that many steps. It gives what differs, with the requests that led there, or an error if
// a system stopped answering.
func RunWatchRound(ctx context.Context, pair *Pair, gen *Generator, steps int) (found []string, asked []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &WatchRound{pair: pair, gen: gen}
	if r.ours, err = openWatchLog(ctx, pair.Ours); err != nil {
		return nil, nil, err
	}
	if r.etcd, err = openWatchLog(ctx, pair.Etcd); err != nil {
		return nil, nil, err
	}
	r.ours.compacted(gen.compact)
	r.etcd.compacted(gen.compact)
	// One watch of everything: progress of the stream needs a watch.
	if err = r.create(ctx, &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}); err != nil {
		return nil, r.asked, err
	}
	for range steps {
		if d, err := r.step(ctx); d != nil || err != nil {
			if d != nil {
				return []string{d.String()}, r.asked, nil
			}
			return nil, r.asked, err
		}
	}
	if err := r.settle(ctx); err != nil {
		return differences(r.ours, r.etcd), r.asked, err
	}
	return differences(r.ours, r.etcd), r.asked, nil
}

func (r *WatchRound) step(ctx context.Context) (*Difference, error) {
	switch n := r.gen.rng.IntN(40); {
	case n < 10:
		return nil, r.create(ctx, r.createRequest())
	case n < 12:
		return nil, r.cancel(ctx)
	case n < 13:
		// etcd cancels a watch that still reads the past when that is compacted, and may be as slow as it likes.
		if err := r.settle(ctx); err != nil {
			return nil, err
		}
		return r.write(ctx, Op{methodCompact, &pb.CompactionRequest{Revision: r.gen.compact + r.gen.rng.Int64N(r.gen.head-r.gen.compact+1)}})
	case n < 32:
		return r.write(ctx, Op{methodPut, r.gen.put()})
	case n < 36:
		return r.write(ctx, Op{methodDelete, r.gen.deleteRange()})
	default:
		return r.write(ctx, Op{methodTxn, r.gen.txn(depthMax)})
	}
}

func (r *WatchRound) write(ctx context.Context, op Op) (*Difference, error) {
	op = r.gen.asked(op)
	r.asked = append(r.asked, op.String())
	answer, d := r.pair.Do(ctx, op)
	r.gen.Learn(op, answer)
	r.ours.compacted(r.gen.compact)
	r.etcd.compacted(r.gen.compact)
	return d, nil
}

func (r *WatchRound) createRequest() *pb.WatchCreateRequest {
	g := r.gen
	key := g.key()
	c := &pb.WatchCreateRequest{
		Key: key, RangeEnd: g.rangeEnd(key), PrevKv: g.chance(2), ProgressNotify: g.chance(4), Fragment: g.chance(4),
	}
	switch n := g.rng.IntN(20); {
	case n < 8:
	case n < 15:
		c.StartRevision = g.compact + g.rng.Int64N(g.head-g.compact+1)
	case n < 16:
		c.StartRevision = max(0, g.compact-g.rng.Int64N(2))
	default:
		c.StartRevision = g.head + 1 + g.rng.Int64N(5)
	}
	if g.chance(6) {
		c.WatchId = g.rng.Int64N(8)
	}
	for range g.rng.IntN(8) / 6 {
		c.Filters = append(c.Filters, pg(g, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE))
	}
	return c
}

// create sends the request to both and waits for both answers.
func (r *WatchRound) create(ctx context.Context, request *pb.WatchCreateRequest) error {
	r.asked = append(r.asked, "create {"+prototext.MarshalOptions{}.Format(request)+"}")
	r.startMax = max(r.startMax, request.GetStartRevision())
	message := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}
	err := r.both(ctx, message, func(l *watchLog) func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		count := len(l.created)
		return func() bool { return len(l.created) > count }
	})
	r.etcd.mu.Lock()
	id := r.etcd.last
	r.etcd.mu.Unlock()
	if start := request.GetStartRevision(); err == nil && id != -1 && start > 0 && start < r.gen.compact {
		return r.compacted(ctx, id)
	}
	return err
}

// compacted waits for the end of a watch that began too far back, and then cancels it as clientv3 does. Before that,
// etcd counts it among the watches that it still has to tell something, and reports no progress.
func (r *WatchRound) compacted(ctx context.Context, id int64) error {
	bounded, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for name, l := range map[string]*watchLog{"ours": r.ours, "etcd": r.etcd} {
		if err := l.until(bounded, func() bool { return l.ended[id] }); err != nil {
			return fmt.Errorf("%s does not cancel watch %d, which began below the compact revision %d: %w", name, id, r.gen.compact, err)
		}
	}
	message := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	return r.both(ctx, message, func(*watchLog) func() bool { return func() bool { return true } })
}

// cancel ends a watch that stands, or asks for one that does not, which nobody answers.
func (r *WatchRound) cancel(ctx context.Context) error {
	id := 1 + r.gen.rng.Int64N(10)
	r.etcd.mu.Lock()
	_, known := r.etcd.floor[id]
	stands := known && !r.etcd.ended[id]
	r.etcd.mu.Unlock()
	r.asked = append(r.asked, fmt.Sprintf("cancel %d", id))
	message := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
	// What a watch was told before its end must be the same.
	if err := r.settle(ctx); err != nil {
		return err
	}
	return r.both(ctx, message, func(l *watchLog) func() bool {
		return func() bool { return !stands || l.ended[id] }
	})
}

// both sends to both systems and waits for each until what expect gave before holds.
func (r *WatchRound) both(ctx context.Context, message *pb.WatchRequest, expect func(*watchLog) func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for name, l := range map[string]*watchLog{"ours": r.ours, "etcd": r.etcd} {
		done := expect(l)
		if err := l.send(message); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := l.until(ctx, done); err != nil {
			return fmt.Errorf("%s does not answer %v: %w", name, message, err)
		}
	}
	return nil
}

// askEvery is how often progress is asked for until it comes.
const askEvery = 20 * time.Millisecond

// settle writes until no watch waits for the future, and at least once, so that progress up to there is news. Then it waits
// until both systems say that they have told all.
func (r *WatchRound) settle(ctx context.Context) error {
	for once := false; !once || r.gen.head < r.startMax; once = true {
		op := Op{methodPut, &pb.PutRequest{Key: []byte("a"), Value: []byte("settle")}}
		before := r.gen.head
		if d, err := r.write(ctx, op); d != nil || err != nil || r.gen.head == before {
			return errors.Join(err, fmt.Errorf("a put does not go through: %v", d))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for name, l := range map[string]*watchLog{"ours": r.ours, "etcd": r.etcd} {
		for {
			if err := l.send(progress); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			waiting, stop := context.WithTimeout(ctx, askEvery)
			err := l.until(waiting, func() bool { return l.progress >= r.gen.head })
			stop()
			if err == nil {
				break
			}
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("%s does not say that all watches have been told all up to %d: %w", name, r.gen.head, err)
			}
		}
	}
	return nil
}
