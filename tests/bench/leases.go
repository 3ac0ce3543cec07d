package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

const (
	// manyLeases are those of lease-million, each of manySeconds and renewed by clientv3's rule, every third of that.
	manyLeases  = 1_000_000
	manySeconds = 60
	manyEvery   = manySeconds * time.Second / 3
	// grantingClients grant their share at a time, so that no lease waits long for its first renewal.
	grantingClients = 50

	// idleLeases are those of lease-memory, which nobody renews.
	idleLeases = 200_000

	// endingLeases end in the same second in lease-expiry.
	endingLeases = 100_000
	// endingAfter is when: longer than the grants take. quietTime of it, before the end, measures puts in peace.
	endingAfter = 45 * time.Second
	quietTime   = 5 * time.Second
	// sampled are those of them that are looked at.
	sampled = 500
	// endingBound is how long the row waits for them all to be gone.
	endingBound = 2 * time.Minute

	// keptEvery is the time between two keepalives of a lease in lease-takeover, and keptTimeout how long one of them waits.
	keptEvery   = 20 * time.Millisecond
	keptTimeout = 5 * time.Second
)

// leaseRows are the rows with many leases.
func leaseRows() []row {
	many, ending, takeover := &manyRenewed{}, &ending{}, &takeover{}
	return []row{
		{
			name: "lease-million", clients: 1000, connections: 20, prepare: many.reset, load: many.load, steps: many.steps, oursOnly: true,
			about: "renewals of a million leases of 60 s by 1000 clients, each lease every 20 s; one that is lost is an error",
		},
		{
			name: "lease-memory", clients: 1000, connections: 20, load: idleLeasesOf, steps: untilDone,
			about: "grants of 200,000 leases that stay: bytes_each is by how much the processes grew for each of them, when they are at rest again",
		},
		{
			name: "lease-expiry", clients: 20, connections: 20, prepare: ending.grant, load: patientPuts, steps: ending.steps,
			about: "puts by 20 clients while 100,000 leases end in the same second: gap_ms is when they are gone, quiet_p99_ms the puts' p99 before",
		},
		{
			name: "lease-takeover", clients: 40, connections: len(nodeNames()), prepare: takeover.reset, load: takeover.load, steps: takeover.steps, threeOnly: true,
			about: "renewals of 40 leases without pause while an owner of leases is killed (etcd: the leader): gap_ms is the longest time without an answer",
		},
	}
}

// manyRenewed is the state of one run of lease-million.
type manyRenewed struct {
	granted  atomic.Int64 // clients that have granted their share
	granting chan struct{}
}

func (a *manyRenewed) reset(context.Context, *target) error {
	a.granted.Store(0)
	a.granting = make(chan struct{}, grantingClients)
	return nil
}

func (a *manyRenewed) load(ctx context.Context, t *target, clients int, m *meter) error {
	group, calling := errgroup.WithContext(context.WithoutCancel(ctx))
	for client := range clients {
		group.Go(func() error {
			share := &share{first: int64(client*(manyLeases/clients) + 1), sent: make([]atomic.Int64, manyLeases/clients), meter: m}
			a.granting <- struct{}{}
			err := share.grant(calling, t.conn(client))
			<-a.granting
			if err != nil || ctx.Err() != nil {
				return err
			}
			a.granted.Add(1)
			return share.renew(ctx, calling, t.conn(client))
		})
	}
	return group.Wait()
}

// steps measure when all leases are there and each is renewed.
func (a *manyRenewed) steps(ctx context.Context, st *stage) error {
	for a.granted.Load() < 1000 {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return once(ctx, st)
}

// share is what one client has of many leases.
type share struct {
	first int64
	sent  []atomic.Int64 // when each was renewed last, Unix nanoseconds
	meter *meter
}

// grant grants all of them, some at a time.
func (s *share) grant(ctx context.Context, conn *grpc.ClientConn) error {
	const inFlight = 20
	lease := pb.NewLeaseClient(conn)
	group, granting := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for i := range s.sent {
		group.Go(func() error {
			_, err := lease.LeaseGrant(granting, &pb.LeaseGrantRequest{ID: s.first + int64(i), TTL: manySeconds})
			return err
		})
	}
	return group.Wait()
}

// renew renews each of them once in manyEvery, evenly, over one stream.
func (s *share) renew(ctx, calling context.Context, conn *grpc.ClientConn) error {
	calling, cancel := context.WithCancel(calling)
	defer cancel()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(calling)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- s.receive(stream) }()
	for begun, at := time.Now(), 0; ctx.Err() == nil; {
		for due := int(time.Since(begun) * time.Duration(len(s.sent)) / manyEvery); at < due; at++ {
			lease := at % len(s.sent)
			s.sent[lease].Store(time.Now().UnixNano())
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: s.first + int64(lease)}) != nil {
				return <-ended
			}
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (s *share) receive(stream pb.Lease_LeaseKeepAliveClient) error {
	for {
		answer, err := stream.Recv()
		switch {
		case err != nil:
			return err
		case answer.TTL <= 0:
			return fmt.Errorf("lease %d is lost", answer.ID)
		}
		s.meter.record(time.Since(time.Unix(0, s.sent[answer.ID-s.first].Load())))
	}
}

// idleLeasesOf grants leases that stay, and records each grant.
func idleLeasesOf(ctx context.Context, t *target, clients int, m *meter) error {
	err := grantMany(ctx, t, clients, idleLeases, func() int64 { return 24 * 3600 }, m)
	if err == nil {
		err = errAllDone
	}
	return err
}

// errAllDone ends a load that has no more to do, and the steps that wait for that.
var errAllDone = errors.New("all is done")

// untilDone measures until the load has no more to do, and by how much the processes have grown then.
func untilDone(ctx context.Context, st *stage) error {
	before, err := st.held("")
	if err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	<-ctx.Done()
	if err := st.shut(); err != nil {
		return err
	}
	after, err := st.heldAtRest(context.WithoutCancel(ctx))
	st.bytesEach = float64(after.residentBytes-before.residentBytes) / idleLeases
	return err
}

// grantMany grants leases of the ids 1 to count; ttl is asked for each when it is its turn.
func grantMany(ctx context.Context, t *target, clients, count int, ttl func() int64, m *meter) error {
	group, granting := errgroup.WithContext(ctx)
	var last atomic.Int64
	for client := range clients {
		lease := pb.NewLeaseClient(t.conn(client))
		group.Go(func() error {
			for id := last.Add(1); id <= int64(count); id = last.Add(1) {
				began := time.Now()
				if _, err := lease.LeaseGrant(granting, &pb.LeaseGrantRequest{ID: id, TTL: ttl()}); err != nil {
					return err
				}
				m.record(time.Since(began))
			}
			return nil
		})
	}
	return group.Wait()
}

// patientPuts are puts by clients that come again when they are turned away, as etcd does to them under this load.
func patientPuts(ctx context.Context, t *target, clients int, m *meter) error {
	const rest = 10 * time.Millisecond
	return closedLoop(func(conn *grpc.ClientConn, random *rand.Rand) call {
		put := putAnyKey(conn, random)
		return func(calling context.Context) error {
			for {
				err := put(calling)
				if status.Convert(err).Message() != rpctypes.ErrorDesc(rpctypes.ErrGRPCRequestTooManyRequests) {
					return err
				}
				m.failed(err)
				if pause(ctx, rest) != nil {
					return nil //nolint:nilerr // the end of the load is no error
				}
			}
		}
	})(ctx, t, clients, m)
}

// ending is the state of one run of lease-expiry.
type ending struct {
	lease pb.LeaseClient
	at    time.Time // when all of them end
	// sample has those of some of the leases that are not known to be gone.
	sample []int64
}

// grant gives each lease what is left until one moment.
func (e *ending) grant(ctx context.Context, t *target) error {
	const clients = 1000
	e.sample = e.sample[:0]
	for id := int64(1); id <= endingLeases; id += endingLeases / sampled {
		e.sample = append(e.sample, id)
	}
	rand.Shuffle(len(e.sample), func(i, j int) { e.sample[i], e.sample[j] = e.sample[j], e.sample[i] })
	e.lease, e.at = pb.NewLeaseClient(t.conn(0)), time.Now().Add(endingAfter)
	ttl := func() int64 { return int64(time.Until(e.at)/time.Second) + 1 }
	if err := grantMany(ctx, t, clients, endingLeases, ttl, &meter{}); err != nil {
		return err
	}
	if time.Until(e.at) < 2*quietTime {
		return fmt.Errorf("the grants took all of the %v until the leases end", endingAfter)
	}
	return nil
}

func (e *ending) steps(ctx context.Context, st *stage) error {
	if err := pause(ctx, time.Until(e.at)-quietTime-st.warmup); err != nil {
		return err
	}
	st.meter.setOpen(true)
	if err := pause(ctx, quietTime-time.Second); err != nil {
		return err
	}
	st.quietP99 = st.meter.forget(0.99)
	st.meter.setOpen(false)
	if err := pause(ctx, time.Until(e.at)); err != nil {
		return err
	}
	if err := st.open(); err != nil {
		return err
	}
	profiled := make(chan error, 1)
	go func() { profiled <- st.profile(ctx) }()
	defer func() { <-profiled }()
	const every = 200 * time.Millisecond
	for begun := time.Now(); time.Since(begun) < endingBound; {
		if err := pause(ctx, every); err != nil {
			return err
		}
		gone, err := e.gone(ctx)
		if err != nil {
			return err
		}
		if gone {
			st.gaps = append(st.gaps, time.Since(e.at))
			return st.shut()
		}
	}
	return fmt.Errorf("not all leases are gone %v after their end", endingBound)
}

// gone looks at some of the leases, a few at a time, until it has seen one that is still there: a list of all would be work that disturbs
// what is measured. Those are looked at last the next time. When none of them is left it asks for the list.
func (e *ending) gone(ctx context.Context) (bool, error) {
	const few = 25
	for len(e.sample) > 0 {
		some := e.sample[:min(few, len(e.sample))]
		left := make([]int64, len(some))
		group, looking := errgroup.WithContext(ctx)
		for i, id := range some {
			group.Go(func() error {
				answer, err := e.lease.LeaseTimeToLive(looking, &pb.LeaseTimeToLiveRequest{ID: id})
				left[i] = answer.GetTTL()
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return false, err
		}
		e.sample = e.sample[len(some):]
		there := 0
		for i, id := range some {
			if left[i] >= 0 {
				e.sample = append(e.sample, id)
				there++
			}
		}
		if there > 0 {
			return false, nil
		}
	}
	list, err := e.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	return err == nil && len(list.Leases) == 0, err
}

// takeover is the state of one run of lease-takeover.
type takeover struct{ longest atomic.Int64 }

func (k *takeover) reset(context.Context, *target) error {
	k.longest.Store(0)
	return nil
}

// load renews each lease again and again, over the next endpoint where a stream breaks.
func (k *takeover) load(ctx context.Context, t *target, clients int, m *meter) error {
	group, calling := errgroup.WithContext(context.WithoutCancel(ctx))
	for client := range clients {
		group.Go(func() error {
			granted, err := pb.NewLeaseClient(t.conn(client)).LeaseGrant(calling, &pb.LeaseGrantRequest{TTL: leaseSeconds})
			if err != nil {
				return err
			}
			last := time.Now()
			for at := client; ctx.Err() == nil; at++ {
				err := k.keep(ctx, calling, t.conn(at), granted.ID, &last, m)
				m.failed(err)
				if errors.Is(err, errLost) {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

var errLost = errors.New("a lease is lost")

// keep renews a lease over one stream until that breaks.
func (k *takeover) keep(ctx, calling context.Context, conn *grpc.ClientConn, id int64, last *time.Time, m *meter) error {
	calling, cancel := context.WithCancel(calling)
	defer cancel()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(calling)
	for err == nil && ctx.Err() == nil {
		began := time.Now()
		if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return err
		}
		timer := time.AfterFunc(keptTimeout, cancel)
		var answer *pb.LeaseKeepAliveResponse
		answer, err = stream.Recv()
		timer.Stop()
		if err != nil {
			return err
		}
		if answer.TTL <= 0 {
			return errLost
		}
		now := time.Now()
		m.record(now.Sub(began))
		for gap := int64(now.Sub(*last)); ; {
			if old := k.longest.Load(); gap <= old || k.longest.CompareAndSwap(old, gap) {
				break
			}
		}
		*last = now
		err = pause(ctx, keptEvery)
	}
	return err
}

// steps kill an owner: a lease-service, where it is a process of its own.
func (k *takeover) steps(ctx context.Context, st *stage) error {
	if err := pause(ctx, st.warmup+3*time.Second); err != nil { // what a start leaves behind is over
		return err
	}
	victim := st.owner
	if victim == "" {
		leader, err := st.nodes.leader(ctx, st.nodes.names)
		if err != nil {
			return err
		}
		victim = leader
	}
	k.longest.Store(0)
	if err := st.open(); err != nil {
		return err
	}
	if err := st.nodes.kill(ctx, victim); err != nil {
		return err
	}
	if err := pause(ctx, 2*keptTimeout); err != nil {
		return err
	}
	st.gaps = append(st.gaps, time.Duration(k.longest.Load()))
	return st.shut()
}
