// Package calls carries client calls to the consensus tier: each goes in a batch to the node that routing chose, and again
// elsewhere where that is safe, until the call's time is over.
//
// It promises that a write is carried out at most once: it is sent again only if the node, or the stream that never sent it,
// is certain. Reads are sent again whatever happened. Every call ends within its own deadline or Config.Timeout, whichever
// is earlier (that one to within expiryStep; one that is Patient, and Ask, with its context alone), with the answer or with the
// error that etcd gives in the like case.
//
// A call with a streamed answer is a read too: it is tried at one node after the other until a first part has come, within the same
// time, and has no other end than its own from then on.
//
// It asks its caller not to change a request's bytes after Do was called, even if Do has returned early: the stream may
// still hold them.
package calls

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/proxy/internal/topology"
	"github.com/holdfastdb/holdfast/proxy/internal/upstream"
)

// callOverhead is what a call costs on the wire and in memory beside its request, in bytes.
const callOverhead = 64

// hungAfter is how long a serializable read waits for the first node that it asks. It may be a large read rather than a node
// that hangs, so the second node gets all the time that is left.
const hungAfter = 2 * time.Second

// patience is what a node is told of calls that may take any time: longer than any does.
const patience = 30 * 24 * time.Hour

// Call is one call. Request and SpanContext are shared with the stream from Do on.
type Call struct {
	Method        consensusv1.Method
	Class         routing.Class
	Request       []byte
	SpanContext   []byte
	MinRevision   int64
	RequireLeader bool
	// Patient calls end with their context alone, not with Config.Timeout.
	Patient bool
}

// Config is what a Client needs.
type Config struct {
	Name     string
	Pool     *upstream.Pool
	Topology *topology.Follower
	Limits   batch.Limits
	// Timeout bounds each call; etcd's is 5 s plus two election timeouts.
	Timeout time.Duration
}

// Client makes calls. Its methods may be called from any goroutine.
type Client struct {
	config  Config
	waiters sync.Pool
	expiry  expiry
	// hung is for the first attempts of serializable reads.
	hung expiry

	// nodes maps endpoints to *callHolder; they are few and looked up by every call.
	nodes sync.Map
}

// New makes a Client; streams open with the first calls.
func New(config Config) *Client {
	return &Client{
		config:  config,
		expiry:  expiry{timeout: config.Timeout},
		hung:    expiry{timeout: hungAfter},
		waiters: sync.Pool{New: func() any { return &waiter{done: make(chan result, 1)} }},
	}
}

// Close ends all streams; calls in flight fail.
func (c *Client) Close() {
	c.nodes.Range(func(_, holder any) bool {
		holder.(*callHolder).Close() //nolint:forcetypeassert // the map holds nothing else
		return true
	})
}

type result struct {
	answer *consensusv1.Answer
	err    error
}

// waiter passes one outcome on; it is used again by later calls.
type waiter struct{ done chan result }

func (w *waiter) Done(answer *consensusv1.Answer, err error) { w.done <- result{answer, err} }

// Do makes the call. The error is a gRPC status with etcd's text, whether it came from the node or arose here.
func (c *Client) Do(ctx context.Context, call *Call) (*consensusv1.Answer, error) {
	now := time.Now()
	deadline, overtime := now.Add(c.config.Timeout), (<-chan struct{})(nil)
	if call.Patient {
		deadline = now.Add(patience)
	} else {
		overtime = c.expiry.begin(now)
	}
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	a := attempts{client: c, call: call, ctx: ctx, began: now, deadline: deadline, expired: overtime}
	for {
		table, changed := c.config.Topology.Changed()
		answer, outcome := a.try(table, changed)
		if outcome == expired {
			return nil, a.overtime(table)
		}
		step := routing.Next(call.Class, outcome, a.count, a.hint != 0)
		switch {
		case step.Err != nil:
			return nil, step.Err
		case !step.Again && answer.GetCode() != 0:
			return nil, status.Error(codes.Code(answer.GetCode()), answer.GetMessage())
		case !step.Again:
			return answer, nil
		case call.RequireLeader && call.Class != routing.Serializable && !table.HasLeader():
			return nil, rpctypes.ErrGRPCNoLeader
		}
		if !a.wait(step.After, changed) {
			return nil, a.overtime(table)
		}
	}
}

// expired is beside the outcomes of routing: the call's time is over.
const expired routing.Outcome = math.MaxUint8

// attempts is one call over its attempts.
type attempts struct {
	client   *Client
	call     *Call
	ctx      context.Context //nolint:containedctx // lives as long as the call
	began    time.Time
	deadline time.Time
	expired  <-chan struct{}

	count int
	hint  uint64
	avoid string
	// leader at the first attempt, to tell later whether it was lost.
	leader uint64
}

// try makes one attempt.
func (a *attempts) try(table *routing.Table, changed <-chan struct{}) (*consensusv1.Answer, routing.Outcome) {
	a.count++
	if a.leader == 0 {
		a.leader = table.Leader
	}
	hint := a.hint
	a.hint = 0
	endpoint, ok := table.Route(a.call.Class, hint, a.avoid)
	if !ok {
		return nil, routing.NotSent
	}
	stream, err := a.client.node(endpoint).Stream()
	if err != nil {
		a.avoid = endpoint
		return nil, routing.NotSent
	}
	w := a.client.waiters.Get().(*waiter) //nolint:forcetypeassert // the pool holds nothing else
	id, err := stream.Go(a.message(), len(a.call.Request)+callOverhead, w)
	if err != nil {
		a.client.waiters.Put(w)
		a.avoid = endpoint
		return nil, outcomeOf(err)
	}
	r, outcome := a.await(w, endpoint, changed)
	if outcome != routing.Answered {
		// The waiter is not used again: its outcome may still be on the way.
		stream.Cancel(id)
		return nil, outcome
	}
	a.client.waiters.Put(w)
	return a.judge(endpoint, r)
}

// await waits for the outcome of one attempt. A read does not wait for a node that went away or was deposed, nor a
// serializable one for a node that hangs: others can answer it.
func (a *attempts) await(w *waiter, endpoint string, changed <-chan struct{}) (result, routing.Outcome) {
	if a.call.Class == routing.Write {
		changed = nil
	}
	var hung <-chan struct{}
	if a.call.Class == routing.Serializable && a.count == 1 {
		hung = a.client.hung.begin(a.began)
	}
	for {
		select {
		case r := <-w.done:
			return r, routing.Answered
		case <-changed:
			var table *routing.Table
			table, changed = a.client.config.Topology.Changed()
			if !table.Serves(a.call.Class, endpoint) {
				a.avoid = endpoint
				return result{}, routing.Lost
			}
		case <-hung:
			a.avoid = endpoint
			return result{}, routing.Lost
		case <-a.ctx.Done():
			return result{}, expired
		case <-a.expired:
			return result{}, expired
		}
	}
}

func (a *attempts) judge(endpoint string, r result) (*consensusv1.Answer, routing.Outcome) {
	if r.err != nil {
		a.avoid = endpoint
		return nil, outcomeOf(r.err)
	}
	answer := r.answer
	if routing.Refused(a.call.Class, answer.GetNotProposed(), codes.Code(answer.GetCode()), answer.GetMessage(), a.call.RequireLeader) {
		a.hint, a.avoid = answer.GetLeader(), endpoint
		return answer, routing.NotProposed
	}
	return answer, routing.Answered
}

// message is made anew for each attempt: one that was sent belongs to its receiver.
func (a *attempts) message() *consensusv1.Call {
	left := time.Until(a.deadline).Milliseconds()
	return &consensusv1.Call{
		Method: a.call.Method, Request: a.call.Request, SpanContext: a.call.SpanContext,
		TimeoutMs:   uint32(min(max(left, 1), math.MaxUint32)),
		MinRevision: a.call.MinRevision, RequireLeader: a.call.RequireLeader,
	}
}

// wait pauses before the next attempt, until the topology changes if that is earlier. It returns false if the call's time
// is over.
func (a *attempts) wait(pause time.Duration, changed <-chan struct{}) bool {
	if pause == 0 {
		return true
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
		return true
	case <-a.ctx.Done():
	case <-a.expired:
	}
	return false
}

// overtime is the error of a call whose time is over.
func (a *attempts) overtime(table *routing.Table) error {
	if err := a.ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	now := a.client.config.Topology.Table()
	return routing.Expired(a.leader != 0 && (table.Leader != a.leader || now.Leader != a.leader))
}

func outcomeOf(err error) routing.Outcome {
	switch {
	case errors.Is(err, batch.ErrFull):
		return routing.Full
	case errors.Is(err, batch.ErrLost):
		return routing.Lost
	default:
		return routing.NotSent
	}
}

// node gives the holder of the stream to an endpoint.
func (c *Client) node(endpoint string) *callHolder {
	holder, ok := c.nodes.Load(endpoint)
	if !ok {
		holder, _ = c.nodes.LoadOrStore(endpoint, batch.NewHolder((&node{endpoint: endpoint, config: &c.config}).open))
	}
	return holder.(*callHolder) //nolint:forcetypeassert // the map holds nothing else
}
