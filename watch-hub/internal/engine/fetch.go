package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/source"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// passTask is one history pass on its way.
type passTask struct {
	cancel context.CancelFunc
	// processed has a token when the core has taken the last message in.
	processed chan struct{}
}

// startPass fetches for a pass, one message at a time: the next is read when the core has dealt with the last.
func (e *Engine) startPass(ctx context.Context, start hub.StartHistory) {
	ctx, cancel := context.WithCancel(ctx)
	p := &passTask{cancel: cancel, processed: make(chan struct{}, 1)}
	e.passes[start.Pass] = p
	e.config.Metrics.fetches.Inc()
	e.tasks.Go(func() {
		defer cancel()
		// Spread, and a moment for more to come that can go along.
		wait(ctx, rand.N(holeDelayMax), nil)
		err := e.config.Nodes.History(ctx, start.After, start.UpTo, start.Ranges, func(m *feedv1.Message) error {
			e.post(ctx, func() {
				if e.passes[start.Pass] == p {
					e.core.History(start.Pass, m)
				}
			})
			select {
			case <-p.processed:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if ctx.Err() != nil {
			return
		}
		e.post(ctx, func() {
			if e.passes[start.Pass] == p {
				delete(e.passes, start.Pass)
				e.core.HistoryEnded(start.Pass, errors.Is(err, source.ErrCompacted))
			}
		})
	})
}

// lookUp asks for previous values until a node answers.
func (e *Engine) lookUp(ctx context.Context, look hub.LookUp) {
	e.config.Metrics.lookups.Add(float64(len(look.Keys)))
	e.tasks.Go(func() {
		kvs, err := e.config.Nodes.PreviousValues(ctx, look.Keys)
		if err != nil {
			return // the engine ends
		}
		e.post(ctx, func() { e.core.Values(look.Keys, kvs) })
	})
}

// repair is the filling of a gap before the live position.
type repair struct {
	running bool
	// patient: it waits for a message that may be on its way; hurry ends that.
	patient bool
	hurry   chan struct{}
}

// How long a gap is left alone. A head alone proves no loss: what is behind it may be on its way. The others are spread a
// little, so that reordered messages can still come, and hubs that all missed something do not ask at once.
const (
	behindDelay  = 150 * time.Millisecond
	holeDelayMax = 10 * time.Millisecond
	bodyDelayMax = 2 * time.Millisecond
)

func delay(cause window.Cause) time.Duration {
	switch cause {
	case window.Behind:
		return behindDelay + rand.N(holeDelayMax)
	case window.BodyLess:
		return rand.N(bodyDelayMax)
	case window.Hole, window.Heartbeat, window.Reset:
	}
	return rand.N(holeDelayMax)
}

// mend starts a repair if the live position misses something and none is on its way.
func (e *Engine) mend(ctx context.Context) {
	need, ok := e.core.Need()
	switch {
	case !ok:
		return
	case e.repair.running:
		if e.repair.patient && need.Cause != window.Behind {
			e.repair.patient = false
			close(e.repair.hurry)
		}
		return
	}
	e.repair = repair{running: true, patient: need.Cause == window.Behind, hurry: make(chan struct{})}
	hurry := e.repair.hurry
	e.tasks.Go(func() {
		wait(ctx, delay(need.Cause), hurry)
		e.post(ctx, func() { e.fill(ctx) })
	})
}

// fill fetches what is still missing.
func (e *Engine) fill(ctx context.Context) {
	need, ok := e.core.Need()
	if !ok {
		e.repair.running = false
		return
	}
	e.config.Metrics.gaps.WithLabelValues(string(need.Cause)).Inc()
	e.config.Log.Debug("filling a gap", "cause", string(need.Cause), "after", need.After, "up_to", need.UpTo)
	e.tasks.Go(func() {
		err := e.config.Nodes.History(ctx, need.After, need.UpTo, nil, func(m *feedv1.Message) error {
			taken := make(chan struct{})
			e.post(ctx, func() {
				e.core.Receive(m)
				e.trace(ctx, time.Now(), nil)
				close(taken)
			})
			select {
			case <-taken:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		e.post(ctx, func() { e.filled(ctx, need, err) })
	})
}

func (e *Engine) filled(ctx context.Context, need window.Need, err error) {
	switch {
	case err == nil:
		e.config.Metrics.backfills.WithLabelValues(string(need.Cause)).Inc()
	case errors.Is(err, source.ErrCompacted):
		if !e.core.LiveCompacted() {
			// The compaction was not heard of yet; a heartbeat will tell.
			e.tasks.Go(func() {
				wait(ctx, tickEvery, nil)
				e.post(ctx, func() { e.repair.running = false })
			})
			return
		}
		e.config.Log.Warn("changes were compacted before this hub saw them", "after", need.After, "up_to", need.UpTo)
	}
	e.repair.running = false
}

func wait(ctx context.Context, d time.Duration, hurry <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-hurry:
	case <-ctx.Done():
	}
}
