package app_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
)

// client is a proxy's stream: it keeps the covered position of each registration by the rule of the contract.
type client struct {
	t      *testing.T
	stream watchv1.Hub_WatchClient
	cancel context.CancelFunc

	mu      sync.Mutex
	taken   uint64
	sent    uint64 // requests that count
	live    int64
	leaving bool
	watches map[uint64]*watched
	broken  []string
}

// watched is one registration.
type watched struct {
	covered  int64
	joined   bool
	got      []string
	previous bool
	ended    *watchv1.Ended
	span     []byte // of the last revision
}

func newClient(t *testing.T, conn grpc.ClientConnInterface, name string) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := watchv1.NewHubClient(conn).Watch(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&watchv1.HubRequest{Name: name}))
	return &client{t: t, stream: stream, cancel: cancel, watches: map[uint64]*watched{}}
}

// receive takes responses until the stream ends.
func (c *client) receive() {
	for {
		r, err := c.stream.Recv()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.take(r)
		mark := c.taken
		c.mu.Unlock()
		if c.stream.Send(&watchv1.HubRequest{Taken: mark}) != nil {
			return
		}
	}
}

func (c *client) take(r *watchv1.HubResponse) {
	if !r.GetMarkAlone() {
		c.taken++
	}
	if r.GetTaken() > c.sent {
		c.broken = append(c.broken, fmt.Sprintf("%d requests taken of %d", r.GetTaken(), c.sent))
	}
	for _, d := range r.GetDeliveries() {
		for _, id := range d.GetRegistrations() {
			c.deliver(c.watches[id], d)
		}
	}
	for _, e := range r.GetEnded() {
		if w := c.watches[e.GetId()]; w != nil {
			w.ended, w.joined = e, false
		}
	}
	for id, w := range c.watches {
		if w.joined && r.GetLiveFrom() > c.live {
			c.broken = append(c.broken, fmt.Sprintf("a hole before (%d, %d] for %d", r.GetLiveFrom(), r.GetLiveTo(), id))
		}
	}
	c.live = max(c.live, r.GetLiveTo())
	for _, id := range r.GetJoined() {
		if w := c.watches[id]; w != nil && w.ended == nil {
			w.joined, w.covered = true, max(w.covered, r.GetLiveTo())
		}
	}
	c.leaving = c.leaving || r.GetLeaving()
}

func (c *client) deliver(w *watched, d *watchv1.Delivery) {
	if w == nil || w.ended != nil {
		return
	}
	position := c.position(w)
	if d.GetFrom() > position {
		c.broken = append(c.broken, fmt.Sprintf("(%d, %d] at %d", d.GetFrom(), d.GetTo(), position))
	}
	for _, r := range d.GetRevisions() {
		if r.GetRevision() <= position {
			continue
		}
		w.span = r.GetSpanContext()
		for _, e := range r.GetEvents() {
			word := fmt.Sprintf("%s=%s", e.GetKey(), bytes.TrimRight(e.GetKv(), " "))
			if w.previous && e.GetPreviousModRevision() > 0 {
				word += fmt.Sprintf("(%s)", e.GetPreviousKv())
			}
			w.got = append(w.got, word)
		}
	}
	w.covered = max(w.covered, d.GetTo())
}

func (c *client) position(w *watched) int64 {
	if w.joined {
		return max(w.covered, c.live)
	}
	return w.covered
}

// watch registers.
func (c *client) watch(r *watchv1.Registration) {
	c.mu.Lock()
	c.watches[r.GetId()] = &watched{covered: r.GetNextRevision() - 1, previous: r.GetPreviousKv()}
	c.sent++
	c.mu.Unlock()
	require.NoError(c.t, c.stream.Send(&watchv1.HubRequest{Register: []*watchv1.Registration{r}}))
}

func (c *client) unwatch(id uint64) {
	c.mu.Lock()
	c.sent++
	c.mu.Unlock()
	require.NoError(c.t, c.stream.Send(&watchv1.HubRequest{Cancel: []uint64{id}}))
}

// at tells what a registration got, whether it is joined, and its position.
func (c *client) at(id uint64) (got []string, joined bool, position int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	require.Empty(c.t, c.broken)
	w := c.watches[id]
	return append([]string(nil), w.got...), w.joined, c.position(w)
}

func (c *client) end(id uint64) *watchv1.Ended {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watches[id].ended
}

func (c *client) left() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leaving
}
