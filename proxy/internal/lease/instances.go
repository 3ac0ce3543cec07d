package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
	"github.com/holdfastdb/holdfast/proxy/internal/upstream"
	"github.com/holdfastdb/holdfast/services/rendezvous"
)

// openTimeout bounds the opening of a stream while a connection is being made.
const openTimeout = time.Second

// errNoInstance says that the view names no live instance.
var errNoInstance = errors.New("lease: no lease-service instance is alive")

type (
	keepStream = batch.Stream[*leasev1.KeepAlive, *leasev1.KeepAliveAnswer]
	keepHolder = batch.Holder[*leasev1.KeepAlive, *leasev1.KeepAliveAnswer]
)

// Instances finds the owner of a lease and holds one keepalive stream to each instance.
type Instances struct {
	pool     *upstream.Pool
	topology *topology.Follower
	limits   batch.Limits

	mu      sync.Mutex
	holders map[instance]*keepHolder
	closed  bool
	// owners is the view prepared for look-ups.
	view   *feedv1.View
	owners rendezvous.Set
	// waiting are the renewals that wait for their next attempt.
	waiting map[*renewal]*time.Timer
}

// instance is one run of a lease-service.
type instance struct {
	name        string
	incarnation uint64
	address     string
}

// NewInstances makes an Instances without streams.
func NewInstances(pool *upstream.Pool, follower *topology.Follower, limits batch.Limits) *Instances {
	return &Instances{pool: pool, topology: follower, limits: limits, holders: map[instance]*keepHolder{}, waiting: map[*renewal]*time.Timer{}}
}

// after makes the next attempt at a renewal after a wait, or as soon as the view changes.
func (i *Instances) after(wait time.Duration, r *renewal) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.waiting[r] = time.AfterFunc(wait, func() {
		i.mu.Lock()
		_, waits := i.waiting[r]
		delete(i.waiting, r)
		i.mu.Unlock()
		if waits {
			r.attempt()
		}
	})
}

// again attempts renewals whose wait the view has ended. Opening a stream may take its time, and the others must not wait for it.
func (i *Instances) again(renewals map[*renewal]*time.Timer) {
	for r, timer := range renewals {
		timer.Stop()
		if i.ready(r.lease) {
			r.attempt()
		} else {
			go r.attempt()
		}
	}
}

// Run follows the view until the context ends, so that what waits at an instance that left it goes to the new owner.
func (i *Instances) Run(ctx context.Context) {
	for {
		table, changed := i.topology.Changed()
		i.mu.Lock()
		if table.View != i.view {
			i.adopt(table.View)
		}
		i.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Close ends all streams.
func (i *Instances) Close() {
	i.mu.Lock()
	holders := i.holders
	i.holders, i.closed = map[instance]*keepHolder{}, true
	i.mu.Unlock()
	for _, holder := range holders {
		holder.Close()
	}
}

// owner is the instance that owns a lease under the newest view; errNoInstance if there is none.
func (i *Instances) owner(lease int64) (instance, error) {
	view := i.topology.Table().View
	i.mu.Lock()
	if view != i.view {
		i.adopt(view)
	}
	owners := i.owners
	i.mu.Unlock()
	at := owners.Owner(lease)
	if at < 0 {
		return instance{}, errNoInstance
	}
	return instanceOf(view.GetInstances()[at]), nil
}

// adopt prepares a view, and closes the streams to instances that are not in it: what waits there goes to new owners, and what waits
// for its next attempt is tried at once.
// The caller holds i.mu.
func (i *Instances) adopt(view *feedv1.View) {
	names := make([]string, 0, len(view.GetInstances()))
	live := map[instance]bool{}
	for _, one := range view.GetInstances() {
		names = append(names, one.GetName())
		live[instanceOf(one)] = true
	}
	i.view, i.owners = view, rendezvous.New(names)
	if len(i.waiting) > 0 {
		go i.again(i.waiting)
		i.waiting = map[*renewal]*time.Timer{}
	}
	for one, holder := range i.holders {
		if !live[one] {
			delete(i.holders, one)
			go holder.Close()
		}
	}
}

func instanceOf(one *feedv1.Instance) instance {
	return instance{one.GetName(), one.GetIncarnation(), one.GetAddress()}
}

// ready tells whether the owner of a lease can be sent to at once.
func (i *Instances) ready(lease int64) bool {
	to, err := i.owner(lease)
	if err != nil {
		return false
	}
	i.mu.Lock()
	holder := i.holders[to]
	i.mu.Unlock()
	if holder == nil {
		return false
	}
	_, ok := holder.Live()
	return ok
}

// stream gives the live keepalive stream to an instance.
func (i *Instances) stream(to instance) (*keepStream, error) {
	i.mu.Lock()
	holder, ok := i.holders[to]
	if !ok && !i.closed {
		holder = batch.NewHolder(func() (*keepStream, error) { return i.open(to) })
		i.holders[to] = holder
	}
	i.mu.Unlock()
	if holder == nil {
		return nil, errNoInstance
	}
	return holder.Stream()
}

// reachable tells whether any instance of the view can be reached; it tries those without a stream.
func (i *Instances) reachable() bool {
	for _, one := range i.topology.Table().View.GetInstances() {
		if _, err := i.stream(instanceOf(one)); err == nil {
			return true
		}
	}
	return false
}

func (i *Instances) open(to instance) (*keepStream, error) {
	conn, err := i.pool.Get(to.address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(openTimeout, cancel)
	stream, err := leasev1.NewKeeperClient(conn).KeepAlives(ctx, grpc.MaxCallRecvMsgSize(math.MaxInt32))
	if err != nil || !timer.Stop() {
		cancel()
		return nil, fmt.Errorf("lease: open stream to %s: %w", to.name, cmp.Or(err, context.DeadlineExceeded))
	}
	return batch.Open[*leasev1.KeepAlive, *leasev1.KeepAliveAnswer](
		keepBinding{stream}, cancel, i.limits,
		func(k *leasev1.KeepAlive, id uint64) { k.Id = id }), nil
}

// keepBinding turns batches into the messages of Keeper.KeepAlives, which knows no cancelling.
type keepBinding struct {
	stream leasev1.Keeper_KeepAlivesClient
}

func (b keepBinding) Send(keepAlives []*leasev1.KeepAlive, _ []uint64, taken uint64) error {
	return b.stream.Send(&leasev1.KeepAliveBatch{KeepAlives: keepAlives, Taken: taken})
}

func (b keepBinding) Recv() ([]*leasev1.KeepAliveAnswer, uint64, error) {
	message, err := b.stream.Recv()
	return message.GetAnswers(), message.GetTaken(), err
}

// keeper is a client for single calls to an instance.
func (i *Instances) keeper(to instance) (leasev1.KeeperClient, error) {
	conn, err := i.pool.Get(to.address)
	if err != nil {
		return nil, err
	}
	return leasev1.NewKeeperClient(conn), nil
}
