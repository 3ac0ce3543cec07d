package fanout

import (
	"sync/atomic"
	"time"
)

const (
	// lingerFor is for how long a worker waits for more to do: from once to twice that. It is no longer there for a stream that is idle; to
	// start one again costs about as much as a delivery.
	lingerFor = time.Second
	// startsMax is how often it is started before it waits at all: what a stream does while it is set up must not leave a stack between
	// those of its neighbours, which would keep the whole page.
	startsMax = 8
)

// worker runs work whenever it is woken, never twice at the same time, in a goroutine that it keeps for lingerFor only.
type worker struct {
	work  func() (did, ok bool)
	token chan struct{} // capacity 1: there may be something to do
	left  chan struct{} // closed when work will not run again

	starts int // since it last left after waiting; whoever is there may use it

	state    atomic.Int32 // one of the states below
	stopping atomic.Bool
	stale    atomic.Bool // lingerFor has passed
}

// The states of a worker.
const (
	away  = iota // no goroutine
	there        // one, and nobody else may start one; for ever, once it has left after stopping or after work said so
	gone         // none, and none may be started
)

// init sets what is to be done; it returns whether it did anything, and whether it may be run again.
func (w *worker) init(work func() (did, ok bool)) {
	w.work, w.token, w.left = work, make(chan struct{}, 1), make(chan struct{})
}

// wake lets work run again, soon.
func (w *worker) wake() {
	w.knock()
	if w.state.Load() == away && w.state.CompareAndSwap(away, there) {
		go w.run()
	}
}

func (w *worker) knock() {
	select {
	case w.token <- struct{}{}:
	default:
	}
}

// stopped says that work shall return.
func (w *worker) stopped() bool { return w.stopping.Load() }

// stop returns when work does not run and will not run again.
func (w *worker) stop() {
	w.stopping.Store(true)
	w.knock()
	if !w.state.CompareAndSwap(away, gone) {
		<-w.left
	}
}

func (w *worker) run() {
	if w.starts++; w.starts > startsMax {
		w.linger()
		return
	}
	for {
		<-w.token
		if _, ok := w.once(); !ok || w.leave() {
			return
		}
	}
}

// linger waits on one channel alone, which everything that may give it something to do writes to: with thousands of streams, waiting on
// several costs more than the delivery.
func (w *worker) linger() {
	timer := time.AfterFunc(lingerFor, func() {
		w.stale.Store(true)
		w.knock()
	})
	defer timer.Stop()
	active := true
	for {
		<-w.token
		did, ok := w.once()
		if !ok {
			return
		}
		active = active || did
		if !w.stale.Swap(false) {
			continue
		}
		if !active {
			w.starts = 0
			if w.leave() {
				return
			}
		}
		active = false
		timer.Reset(lingerFor)
	}
}

// once works, unless it is not to work any more: then there is no worker from now on.
func (w *worker) once() (did, ok bool) {
	did, ok = w.work()
	if !ok || w.stopping.Load() {
		close(w.left)
		return did, false
	}
	return did, true
}

// leave gives the place up, unless there is something to do: who wakes the worker leaves a token before it looks whether it is there.
func (w *worker) leave() bool {
	w.state.Store(away)
	return len(w.token) == 0 || !w.state.CompareAndSwap(away, there)
}
