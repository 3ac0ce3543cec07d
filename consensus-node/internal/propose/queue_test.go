package propose_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/consensus-node/internal/apply"
	"github.com/holdfastdb/holdfast/consensus-node/internal/propose"
	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

func put(bytes int) *journalv1.Command {
	return &journalv1.Command{Command: &journalv1.Command_Put{Put: make([]byte, bytes)}}
}

// urgentCommands are all that pass ordinary writes.
func urgentCommands() map[string]*journalv1.Command {
	return map[string]*journalv1.Command{
		"grant":      {Command: &journalv1.Command_LeaseGrant{LeaseGrant: []byte{1}}},
		"revoke":     {Command: &journalv1.Command_LeaseRevoke{LeaseRevoke: []byte{1}}},
		"expire":     {Command: &journalv1.Command_LeaseExpire{LeaseExpire: &journalv1.LeaseExpire{}}},
		"checkpoint": {Command: &journalv1.Command_LeaseCheckpoint{LeaseCheckpoint: &journalv1.LeaseCheckpoints{}}},
		"view":       {Command: &journalv1.Command_ViewChange{ViewChange: &journalv1.ViewChange{}}},
	}
}

func (r *raft) bytes() (sum int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, entry := range r.entries {
		sum += entry.SizeVT()
	}
	return sum
}

// kinds writes each entry as letters: p for a put, u for an urgent command.
func (r *raft) kinds() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var kinds []string
	for _, entry := range r.entries {
		var kind strings.Builder
		for _, command := range entry.GetCommands() {
			if _, ok := command.GetCommand().(*journalv1.Command_Put); ok {
				kind.WriteByte('p')
			} else {
				kind.WriteByte('u')
			}
		}
		kinds = append(kinds, kind.String())
	}
	return kinds
}

// Puts that nobody answers fill what may be in flight and then the queue, and are refused as too many requests. What leases need
// is taken and proposed all the same.
func TestLeaseWorkPassesPutsThatAreStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &raft{}
		packer, submit, outcomes, cancel := start(t, r)
		defer cancel()
		for range propose.InFlightBytesMax/propose.PackBytesMax + 10 {
			submit(propose.PackBytesMax, false)
			synctest.Wait()
		}
		require.Empty(t, outcomes())
		require.GreaterOrEqual(t, r.bytes(), propose.InFlightBytesMax)
		require.Less(t, r.bytes(), propose.InFlightBytesMax+2*propose.PackBytesMax, "the rest waits")
		for range propose.QueueBytesMax / propose.PackBytesMax {
			submit(propose.PackBytesMax, false)
		}
		refused := outcomes()
		require.NotEmpty(t, refused, "the queue is full")
		for _, o := range refused {
			require.True(t, o.NotProposed)
			require.ErrorIs(t, o.Err, rpctypes.ErrGRPCRequestTooManyRequests)
		}

		for name, command := range urgentCommands() {
			before := len(r.sizes())
			done := make(chan propose.Outcome, 1)
			packer.Submit(propose.Write{Command: command, Done: func(o propose.Outcome) { done <- o }})
			synctest.Wait()
			require.Len(t, r.sizes(), before+1, "%s is proposed at once", name)
			packer.Resolve(apply.Outcome{ID: command.GetId()})
			require.NoError(t, (<-done).Err, name)
		}

		// Each answer makes room for what waits.
		before := len(r.sizes())
		packer.Resolve(apply.Outcome{ID: r.ids(0)[0]})
		packer.Resolve(apply.Outcome{ID: r.ids(1)[0]})
		synctest.Wait()
		require.Greater(t, len(r.sizes()), before)
	})
}

// queueAll queues before the packer runs, so that all waits at once, and gives what it made of it.
func queueAll(t *testing.T, r *raft, writes ...propose.Write) []string {
	t.Helper()
	began := time.Now()
	packer := propose.New(r, 1<<32, timeout, func() time.Duration { return time.Since(began) })
	for _, w := range writes {
		w.Done = func(propose.Outcome) {}
		packer.Submit(w)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { _ = packer.Run(ctx) }()
	synctest.Wait()
	return r.kinds()
}

// Urgent writes that go alone come first, and every fourth entry is for the others however many there are.
func TestUrgentWritesStarveNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes []propose.Write
		for range 4 {
			writes = append(writes, propose.Write{Command: put(propose.PackBytesMax - 200)})
		}
		for range 20 {
			writes = append(writes, propose.Write{Command: urgentCommands()["expire"], Exclusive: true})
		}
		kinds := queueAll(t, &raft{}, writes...)
		require.Equal(t, "u u u p u u u p u u u p u u u p", strings.Join(kinds[:16], " "))
	})
}

// One entry takes both kinds; the urgent ones leave half of it.
func TestUrgentWritesShareAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, count = 2 << 10, 200
		var writes []propose.Write
		for range count {
			writes = append(writes, propose.Write{Command: put(size)})
		}
		for range count {
			revoke := &journalv1.Command{Command: &journalv1.Command_LeaseRevoke{LeaseRevoke: make([]byte, size)}}
			writes = append(writes, propose.Write{Command: revoke})
		}
		kinds := queueAll(t, &raft{}, writes...)
		require.True(t, strings.HasPrefix(kinds[0], "u"), "urgent ones first")
		require.InDelta(t, len(kinds[0])/2, strings.Count(kinds[0], "p"), 1)
		require.Equal(t, strings.Count(strings.Join(kinds, ""), "p"), strings.Count(strings.Join(kinds, ""), "u"))
	})
}

// The queue of urgent writes is bounded too.
func TestUrgentQueueIsBounded(t *testing.T) {
	packer := propose.New(&raft{}, 0, timeout, func() time.Duration { return 0 }) // nobody runs it
	refused := 0
	for range propose.UrgentBytesMax/(1<<20) + 3 {
		packer.Submit(propose.Write{
			Command: &journalv1.Command{Command: &journalv1.Command_LeaseRevoke{LeaseRevoke: make([]byte, 1<<20)}},
			Done: func(o propose.Outcome) {
				require.ErrorIs(t, o.Err, rpctypes.ErrGRPCRequestTooManyRequests)
				refused++
			},
		})
	}
	require.Positive(t, refused)
}
