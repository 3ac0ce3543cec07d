package differential

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// callTimeout bounds each request; a system that does not answer differs.
const callTimeout = 10 * time.Second

// Pair is a system of ours and an etcd with the same history.
type Pair struct {
	Ours, Etcd grpc.ClientConnInterface
	toOurs     leaseIDs // from etcd's generated ids to ours
	toEtcd     leaseIDs
	clocks     clocks
	coverage   map[string]int
}

// NewPair makes a Pair of two fresh systems.
func NewPair(ours, etcd grpc.ClientConnInterface) *Pair {
	return &Pair{
		Ours: ours, Etcd: etcd, toOurs: leaseIDs{}, toEtcd: leaseIDs{}, clocks: clocks{short: map[int64]time.Time{}}, coverage: map[string]int{},
	}
}

// Difference is a request that the two systems answered differently.
type Difference struct {
	At         int // how many requests came before
	Op         Op
	Ours, Etcd Outcome
}

// String tells all of it.
func (d *Difference) String() string {
	return fmt.Sprintf("request %d: %s\n etcd: %s\n ours: %s", d.At, d.Op, d.Etcd, d.Ours)
}

// Do sends the request, in which leases have etcd's ids, to both and compares. The first result is etcd's answer.
func (p *Pair) Do(ctx context.Context, op Op) (etcds Outcome, d *Difference) {
	translated := Op{op.Method, proto.Clone(op.Request)}
	p.toOurs.inRequest(translated.Request)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var ours Outcome
	var both sync.WaitGroup
	both.Go(func() { ours = translated.Do(ctx, p.Ours) })
	both.Go(func() { etcds = op.Do(ctx, p.Etcd) })
	both.Wait()
	p.learn(op, ours, etcds)
	p.clocks.note(op, etcds, max(ours.Took, etcds.Took))
	p.cover(op, etcds)
	for _, outcome := range []Outcome{ours, etcds} {
		if outcome.Response != nil {
			Normalize(outcome.Response)
		}
	}
	if ours.Response != nil {
		p.toEtcd.inResponse(ours.Response)
		Normalize(ours.Response) // the translated ids sort anew
	}
	if !Equal(op, ours, etcds, &p.clocks) {
		return etcds, &Difference{Op: op, Ours: ours, Etcd: etcds}
	}
	return etcds, nil
}

// learn notes the ids of a lease that both systems named themselves.
func (p *Pair) learn(op Op, ours, etcds Outcome) {
	request, ok := op.Request.(*pb.LeaseGrantRequest)
	if !ok || request.GetID() != 0 || ours.Response == nil || etcds.Response == nil {
		return
	}
	o, okO := ours.Response.(*pb.LeaseGrantResponse)
	e, okE := etcds.Response.(*pb.LeaseGrantResponse)
	if okO && okE && o.GetID() != 0 && e.GetID() != 0 {
		p.toOurs[e.GetID()], p.toEtcd[o.GetID()] = o.GetID(), e.GetID()
	}
}

// Replay sends the requests in order up to the first difference; nil if there is none.
func (p *Pair) Replay(ctx context.Context, ops []Op) *Difference {
	for i, op := range ops {
		if _, d := p.Do(ctx, op); d != nil {
			d.At = i
			return d
		}
	}
	return nil
}
