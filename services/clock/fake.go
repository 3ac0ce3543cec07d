package clock

import (
	"sync"
	"time"
)

// Fake is a clock for tests: time stands still until Advance moves it. It starts at an hour, so that a test may look
// back. Make one with NewFake.
type Fake struct {
	mu      sync.Mutex
	now     time.Duration
	waiters map[*fakeTimer]bool // the timers and tickers that will fire
	changed chan struct{}       // closed and replaced when waiters changes
}

var _ Clock = (*Fake)(nil)

// NewFake makes a clock that stands still.
func NewFake() *Fake {
	return &Fake{now: time.Hour, waiters: map[*fakeTimer]bool{}, changed: make(chan struct{})}
}

// Now is what Advance made it.
func (f *Fake) Now() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Advance moves time by d in one step and fires what is due, each timer and ticker at most once: as after a pause.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now += d
	f.fireLocked()
}

// AwaitTimers waits until at least n timers and tickers are set, so that a test can advance time knowing that the code
// under test waits for it. It waits for ever: the test's own timeout ends it.
func (f *Fake) AwaitTimers(n int) {
	for {
		f.mu.Lock()
		enough, changed := len(f.waiters) >= n, f.changed
		f.mu.Unlock()
		if enough {
			return
		}
		<-changed
	}
}

// NewTimer makes a timer that Advance fires; one of no or negative duration fires at once.
func (f *Fake) NewTimer(d time.Duration) Timer {
	t := &fakeTimer{clock: f, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

// NewTicker makes a ticker that Advance fires.
func (f *Fake) NewTicker(d time.Duration) Ticker {
	if d <= 0 {
		panic("clock: a ticker needs a positive period")
	}
	t := &fakeTimer{clock: f, c: make(chan time.Time, 1), period: d}
	t.Reset(d)
	return fakeTicker{t}
}

// fireLocked fires what is due; the caller holds f.mu.
func (f *Fake) fireLocked() {
	for t := range f.waiters {
		if t.at > f.now {
			continue
		}
		select {
		case t.c <- time.Time{}:
		default: // the last tick was not taken
		}
		if t.period == 0 {
			delete(f.waiters, t)
			continue
		}
		for t.at <= f.now {
			t.at += t.period
		}
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

// fakeTimer is a timer, or a ticker if it has a period.
type fakeTimer struct {
	clock  *Fake
	c      chan time.Time
	at     time.Duration
	period time.Duration
}

func (t *fakeTimer) C() <-chan time.Time { return t.c }

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	waiting := t.clock.waiters[t]
	delete(t.clock.waiters, t)
	t.drain()
	return waiting
}

func (t *fakeTimer) Reset(d time.Duration) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.drain()
	t.at = t.clock.now + d
	t.clock.waiters[t] = true
	t.clock.fireLocked()
}

// drain takes back a firing that nobody took, as the runtime's timers do.
func (t *fakeTimer) drain() {
	select {
	case <-t.c:
	default:
	}
}

type fakeTicker struct{ t *fakeTimer }

func (t fakeTicker) C() <-chan time.Time { return t.t.c }
func (t fakeTicker) Stop()               { t.t.Stop() }
