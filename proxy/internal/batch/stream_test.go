package batch_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/batch"
	"github.com/holdfastdb/holdfast/services/credit"
)

// fake is the far end: it records batches and answers by hand.
type fake struct {
	ctx  context.Context
	sent chan sent
	recv chan received
	fail error
}

type sent struct {
	ids, cancelled []uint64
	taken          uint64
}

type received struct {
	ids   []uint64
	taken uint64
}

func (f *fake) Send(calls []*consensusv1.Call, cancelled []uint64, taken uint64) error {
	if f.fail != nil {
		return f.fail
	}
	var ids []uint64
	for _, call := range calls {
		ids = append(ids, call.GetId())
	}
	f.sent <- sent{ids, cancelled, taken}
	return nil
}

func (f *fake) Recv() ([]*consensusv1.Answer, uint64, error) {
	select {
	case r := <-f.recv:
		var answers []*consensusv1.Answer
		for _, id := range r.ids {
			answers = append(answers, &consensusv1.Answer{Id: id})
		}
		return answers, r.taken, nil
	case <-f.ctx.Done():
		return nil, 0, f.ctx.Err()
	}
}

type outcomes map[string]error

type waiter struct {
	name string
	to   chan<- func(outcomes)
}

func (w waiter) Done(_ *consensusv1.Answer, err error) {
	w.to <- func(o outcomes) { o[w.name] = err }
}

type rig struct {
	*batch.Stream[*consensusv1.Call, *consensusv1.Answer]
	far  *fake
	done chan func(outcomes)
}

func open(t *testing.T, limits batch.Limits) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &rig{
		far:  &fake{ctx: ctx, sent: make(chan sent, 16), recv: make(chan received)},
		done: make(chan func(outcomes), 16),
	}
	r.Stream = batch.Open[*consensusv1.Call, *consensusv1.Answer](r.far, cancel, limits,
		func(c *consensusv1.Call, id uint64) { c.Id = id })
	return r
}

func (r *rig) call(t *testing.T, name string) uint64 {
	t.Helper()
	id, err := r.Go(&consensusv1.Call{}, 1, waiter{name, r.done})
	require.NoError(t, err)
	synctest.Wait()
	return id
}

func (r *rig) outcomes() outcomes {
	synctest.Wait()
	o := outcomes{}
	for len(r.done) > 0 {
		(<-r.done)(o)
	}
	return o
}

func TestLoadFormsBatchesAndAnswersMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, batch.DefaultLimits())
		for _, name := range []string{"a", "b", "c", "d"} {
			r.call(t, name)
		}
		require.Equal(t, []uint64{1}, (<-r.far.sent).ids, "idle: at once")
		require.Equal(t, []uint64{2}, (<-r.far.sent).ids)
		require.Empty(t, r.far.sent, "two batches await their mark")
		r.far.recv <- received{ids: []uint64{2, 99}, taken: 1}
		require.Equal(t, outcomes{"b": nil}, r.outcomes())
		next := <-r.far.sent
		require.Equal(t, []uint64{3, 4}, next.ids)
		r.far.recv <- received{ids: []uint64{4, 3, 1}, taken: 3}
		require.Equal(t, outcomes{"a": nil, "c": nil, "d": nil}, r.outcomes())
		require.Empty(t, r.far.sent, "one batch is unmarked, and the other side has credit left")
		r.far.recv <- received{ids: []uint64{98}, taken: 3}
		require.EqualValues(t, 3, (<-r.far.sent).taken, "the mark goes alone when the other side may be out of credit")
		r.Close()
	})
}

func TestBreakTellsSentFromUnsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, batch.DefaultLimits())
		for _, name := range []string{"a", "b", "c"} {
			r.call(t, name)
		}
		r.Close()
		o := r.outcomes()
		require.ErrorIs(t, o["a"], batch.ErrLost)
		require.ErrorIs(t, o["b"], batch.ErrLost)
		require.ErrorIs(t, o["c"], batch.ErrNotSent)
		_, err := r.Go(&consensusv1.Call{}, 1, waiter{"d", r.done})
		require.ErrorIs(t, err, batch.ErrNotSent)
	})
}

func TestFailedSendLeavesItsCallsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, batch.DefaultLimits())
		r.far.fail = errors.New("wire cut")
		r.call(t, "a")
		require.ErrorIs(t, r.outcomes()["a"], batch.ErrLost)
		<-r.Done()
		require.ErrorContains(t, r.Err(), "wire cut")
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, batch.DefaultLimits())
		a, _, c := r.call(t, "a"), r.call(t, "b"), r.call(t, "c")
		r.call(t, "d")
		require.True(t, r.Cancel(a), "sent")
		require.False(t, r.Cancel(c), "still here")
		r.far.recv <- received{taken: 2}
		<-r.far.sent
		<-r.far.sent
		require.Equal(t, sent{ids: []uint64{4}, cancelled: []uint64{1}}, <-r.far.sent)
		r.far.recv <- received{ids: []uint64{1, 2, 4}, taken: 3}
		require.Equal(t, outcomes{"b": nil, "d": nil}, r.outcomes())
		r.Close()
	})
}

// Cancelled calls must not eat the credit: the far end counts batches with calls.
func TestBatchOfCancelledCallsIsNotEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, batch.DefaultLimits())
		r.call(t, "a")
		r.call(t, "b")
		r.Cancel(r.call(t, "c"))
		r.Cancel(r.call(t, "d"))
		r.far.recv <- received{taken: 2}
		<-r.far.sent
		<-r.far.sent
		require.Equal(t, []uint64{4}, (<-r.far.sent).ids)
		r.Close()
	})
}

func TestInFlightIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := batch.Limits{
			Limits:   credit.Limits{QueueItems: 8, QueueBytes: 8, BatchItems: 8, BatchBytes: 8},
			InFlight: 2,
		}
		r := open(t, limits)
		r.call(t, "a")
		r.call(t, "b")
		_, err := r.Go(&consensusv1.Call{}, 1, waiter{"c", r.done})
		require.ErrorIs(t, err, batch.ErrFull)
		r.Close()
	})
}
