// Package clock gives time that no operator and no time server can set: the time since boot, including the time that the
// machine was suspended (CLOCK_BOOTTIME). Lease deadlines need it: with a clock that stops in suspend, a lease-service
// that slept would go on to acknowledge leases that ran out meanwhile.
//
// Readings compare only within one boot of one machine. A guest that its hypervisor pauses may not see that time pass;
// nothing here can.
//
// Timers and tickers are the runtime's and may fire late, by the time suspended among others: they say when to look at
// Now, never what it is.
package clock

import "time"

// Clock is a source of time; safe for concurrent use.
type Clock interface {
	// Now is the time since an arbitrary moment, in nanoseconds. It never goes back.
	Now() time.Duration
	// NewTimer makes a timer that fires once, no earlier than after d.
	NewTimer(d time.Duration) Timer
	// NewTicker makes a ticker that fires every d; d must be positive. A tick that nobody took is dropped.
	NewTicker(d time.Duration) Ticker
}

// Timer fires once.
type Timer interface {
	// C gives a value when the timer fires; what the value is means nothing.
	C() <-chan time.Time
	// Stop keeps the timer from firing and tells whether it had not fired yet. After it, C gives nothing.
	Stop() bool
	// Reset lets the timer fire after d from now, whatever its state; an earlier firing that nobody took is gone.
	Reset(d time.Duration)
}

// Ticker fires again and again.
type Ticker interface {
	// C gives a value at each tick; what the value is means nothing.
	C() <-chan time.Time
	// Stop ends the ticks.
	Stop()
}

// Boottime is the real clock. The zero value is ready.
type Boottime struct{}

var _ Clock = Boottime{}

// Now is the time since boot.
func (Boottime) Now() time.Duration { return boottime() }

// NewTimer is a timer of the runtime.
func (Boottime) NewTimer(d time.Duration) Timer { return timer{time.NewTimer(d)} }

// NewTicker is a ticker of the runtime.
func (Boottime) NewTicker(d time.Duration) Ticker { return ticker{time.NewTicker(d)} }

type timer struct{ t *time.Timer }

func (t timer) C() <-chan time.Time   { return t.t.C }
func (t timer) Stop() bool            { return t.t.Stop() }
func (t timer) Reset(d time.Duration) { t.t.Reset(d) }

type ticker struct{ t *time.Ticker }

func (t ticker) C() <-chan time.Time { return t.t.C }
func (t ticker) Stop()               { t.t.Stop() }
