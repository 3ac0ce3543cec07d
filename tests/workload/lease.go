package workload

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/holdfastdb/holdfast/tests/history"
)

// LeaseTTLMax is the longest TTL of the leases that HoldLeases grants.
const LeaseTTLMax = 6 * time.Second

// HoldLeases grants one lease after the other until ctx is done. Each gets a key, is kept alive for a while, and is then
// abandoned or revoked.
func (w *Workload) HoldLeases(ctx context.Context, c Client) {
	rng := w.rand(c.Name)
	for ctx.Err() == nil {
		ttl := 3*time.Second + time.Duration(rng.Int64N(int64(LeaseTTLMax/time.Second)-2))*time.Second
		l, ok := w.grant(ctx, c, rng, ttl)
		if !ok {
			rest(ctx, pauseAfterFailure)
			continue
		}
		w.hang(ctx, c, l)
		until := w.Now() + time.Duration(rng.Int64N(int64(2*ttl)))
		w.renew(ctx, c, l, ttl/4, until)
		if ctx.Err() == nil && rng.IntN(4) == 0 {
			w.revoke(ctx, c, l)
		}
	}
}

const pauseAfterFailure = 100 * time.Millisecond

// grant makes a lease with an id of ours, so that one whose grant's outcome is unknown is known by it.
func (w *Workload) grant(ctx context.Context, c Client, rng *rand.Rand, ttl time.Duration) (*history.Lease, bool) {
	l := &history.Lease{ID: rng.Int64N(1<<62) + 1, TTL: ttl, GrantCall: w.Now()}
	w.AddLease(l)
	bounded, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	granted, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(bounded, &pb.LeaseGrantRequest{ID: l.ID, TTL: int64(ttl / time.Second)})
	l.Tried(w.Now())
	if err != nil {
		l.Granted(outcome(err), 0)
		return l, false
	}
	l.Granted(history.Done, time.Duration(granted.TTL)*time.Second)
	return l, true
}

// leaseKey is the key that hangs on a lease.
func leaseKey(l *history.Lease) string { return fmt.Sprintf("l/%x", l.ID) }

// hang puts the lease's key.
func (w *Workload) hang(ctx context.Context, c Client, l *history.Lease) bool {
	op := w.Do(ctx, c, one(history.Action{Kind: history.Put, Key: leaseKey(l), Value: w.value(c.Name), Lease: l.ID}))
	if op.Outcome == history.NotDone {
		l.Went(history.Gone{At: op.Return, How: op.Err})
	}
	return op.Outcome == history.Done
}

// renew keeps the lease alive every so often until a time, on streams of its own.
func (w *Workload) renew(ctx context.Context, c Client, l *history.Lease, every, until time.Duration) {
	for w.Now() < until && ctx.Err() == nil {
		if w.stream(ctx, c, l, every, until) {
			return
		}
		rest(ctx, pauseAfterFailure)
	}
}

// stream is one stream of keepalives; it says whether there is no more to do.
func (w *Workload) stream(ctx context.Context, c Client, l *history.Lease, every, until time.Duration) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return false
	}
	for {
		r := history.Renewal{Call: w.Now()}
		if stream.Send(&pb.LeaseKeepAliveRequest{ID: l.ID}) != nil {
			return false
		}
		timer := time.AfterFunc(OpTimeout, cancel)
		answer, err := stream.Recv()
		timer.Stop()
		l.Tried(w.Now())
		if err != nil {
			return false
		}
		r.Return = w.Now()
		if answer.TTL <= 0 {
			l.Went(history.Gone{At: r.Return, How: "answer to a keepalive"})
			return true
		}
		l.Renew(r)
		if !rest(ctx, every) || w.Now() >= until {
			return true
		}
	}
}

func (w *Workload) revoke(ctx context.Context, c Client, l *history.Lease) {
	l.Revoke(w.Now())
	bounded, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	if _, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseRevoke(bounded, &pb.LeaseRevokeRequest{ID: l.ID}); err == nil {
		l.Revoked(w.Now())
	}
}

// Keep makes a lease that clientv3 keeps alive until ctx is done, and gives what waits for that; an error says that it
// could not be made.
func (w *Workload) Keep(ctx context.Context, c Client, ttl time.Duration) (wait func(), err error) {
	rng := w.rand(c.Name)
	for {
		l, ok := w.grant(ctx, c, rng, ttl)
		if ok && w.hang(ctx, c, l) {
			answers, err := c.KeepAlive(ctx, clientv3.LeaseID(l.ID))
			if err != nil {
				return nil, err
			}
			l.Keep(true)
			return func() { w.keeping(ctx, l, answers) }, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (w *Workload) keeping(ctx context.Context, l *history.Lease, answers <-chan *clientv3.LeaseKeepAliveResponse) {
	for answer := range answers {
		// When it was sent is clientv3's; at the earliest when the answer before it came. The TTL since then is the check of
		// the streams of HoldLeases.
		_ = answer
	}
	if ctx.Err() == nil {
		l.Went(history.Gone{At: w.Now(), How: "clientv3 gave it up"})
	}
}

// Left are the leases that nobody keeps and that a node still knows. What it says of others counts as a sign.
func (w *Workload) Left(ctx context.Context, c *clientv3.Client) (left []*history.Lease, err error) {
	there := map[int64]bool{}
	bounded, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	list, err := c.Leases(bounded)
	if err != nil {
		return nil, err
	}
	for _, l := range list.Leases {
		there[int64(l.ID)] = true
	}
	for _, l := range w.Leases() {
		if !l.Kept() && there[l.ID] {
			left = append(left, l)
		}
	}
	return left, nil
}

// Alive tells whether the lease lives, after the end of all faults.
func (w *Workload) Alive(ctx context.Context, c *clientv3.Client, l *history.Lease) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, OpTimeout)
	defer cancel()
	r, err := c.TimeToLive(bounded, clientv3.LeaseID(l.ID))
	if Code(err) == codes.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.TTL > 0, nil
}
