package fanout

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A worker waits for more only where it is woken again and again, and not for ever.
func TestWorkerLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w worker
		var runs, todo atomic.Int64
		w.init(func() (did, ok bool) {
			runs.Add(1)
			return todo.Swap(0) > 0, true
		})
		ask := func() {
			todo.Store(1)
			w.wake()
			synctest.Wait()
			require.Zero(t, todo.Load())
		}
		for range 3 {
			for range startsMax {
				ask()
				require.EqualValues(t, away, w.state.Load(), "what is woken seldom takes no stack")
			}
			ask()
			require.EqualValues(t, there, w.state.Load(), "what is woken often stays")
			time.Sleep(lingerFor - 1)
			require.EqualValues(t, there, w.state.Load())
			time.Sleep(lingerFor + 1)
			synctest.Wait()
			require.EqualValues(t, away, w.state.Load(), "but not for ever")
		}
		for range startsMax {
			ask()
		}
		for range 10 { // as long as something comes it stays
			ask()
			time.Sleep(lingerFor / 2)
			require.EqualValues(t, there, w.state.Load())
		}
		w.stop()
		before := runs.Load()
		w.wake()
		time.Sleep(3 * lingerFor)
		require.Equal(t, before, runs.Load(), "once stopped it does nothing")
	})
}

// What is asked for while the worker leaves is done, and work never runs twice at the same time.
func TestWorkerMissesNothing(t *testing.T) {
	var w worker
	var asked, done atomic.Int64
	var running atomic.Int32
	w.init(func() (did, ok bool) {
		if running.Add(1) != 1 {
			panic("work runs twice")
		}
		defer running.Add(-1)
		w.starts = 0 // it leaves as soon as it finds nothing to do
		seen := asked.Load()
		did = done.Swap(seen) != seen
		return did, true
	})
	for range 20_000 {
		asked.Add(1)
		w.wake()
		// The moment at which this is seen is the one at which it leaves.
		for deadline := time.Now().Add(15 * time.Second); done.Load() != asked.Load(); runtime.Gosched() {
			require.True(t, time.Now().Before(deadline), "what was asked is not done")
		}
	}
	w.stop()
}

// Once stopped, work does not run and is not started again, whoever wakes the worker meanwhile.
func TestWorkerStops(t *testing.T) {
	for range 500 {
		var w worker
		var over atomic.Bool
		w.init(func() (did, ok bool) {
			if over.Load() {
				panic("work runs after stop")
			}
			return true, true
		})
		var wakers sync.WaitGroup
		for range 3 {
			wakers.Go(func() {
				for range 20 {
					w.wake()
					w.stale.Store(true)
				}
			})
		}
		w.stop()
		over.Store(true)
		wakers.Wait()
	}
}

// Work that says that it is over does not run again, and does not hold up who stops the worker.
func TestWorkerEnds(t *testing.T) {
	var w worker
	runs := 0
	w.init(func() (did, ok bool) { runs++; return true, false })
	w.wake()
	w.stop()
	w.wake()
	w.stop()
	require.LessOrEqual(t, runs, 1)
}
