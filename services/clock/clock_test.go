package clock_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/clock"
)

func TestBoottime(t *testing.T) {
	c := clock.Boottime{}
	before := c.Now()
	require.Positive(t, before)
	timer := c.NewTimer(time.Millisecond)
	<-timer.C()
	require.False(t, timer.Stop(), "it has fired")
	require.GreaterOrEqual(t, c.Now()-before, time.Millisecond)
	timer.Reset(time.Hour)
	require.True(t, timer.Stop())
	ticker := c.NewTicker(time.Millisecond)
	<-ticker.C()
	<-ticker.C()
	ticker.Stop()
}

func fired(c <-chan time.Time) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestFakeTimer(t *testing.T) {
	c := clock.NewFake()
	begin := c.Now()
	timer := c.NewTimer(10 * time.Second)
	c.Advance(9 * time.Second)
	require.False(t, fired(timer.C()))
	c.Advance(time.Second)
	require.True(t, fired(timer.C()))
	require.False(t, timer.Stop())
	require.Equal(t, 10*time.Second, c.Now()-begin)

	timer.Reset(time.Second)
	c.Advance(time.Second)
	timer.Reset(time.Second)
	require.False(t, fired(timer.C()), "Reset takes back a firing that nobody took")
	require.True(t, timer.Stop())
	c.Advance(time.Hour)
	require.False(t, fired(timer.C()))
	timer.Reset(0)
	require.True(t, fired(timer.C()))
}

func TestFakeTicker(t *testing.T) {
	c := clock.NewFake()
	ticker := c.NewTicker(time.Second)
	c.Advance(5 * time.Second)
	require.True(t, fired(ticker.C()))
	require.False(t, fired(ticker.C()), "ticks that nobody took are dropped")
	c.Advance(time.Second)
	require.True(t, fired(ticker.C()))
	ticker.Stop()
	c.Advance(time.Hour)
	require.False(t, fired(ticker.C()))
}

func TestFakeAwaitTimers(t *testing.T) {
	c := clock.NewFake()
	got := make(chan bool)
	go func() {
		<-c.NewTimer(time.Minute).C()
		got <- true
	}()
	c.AwaitTimers(1)
	c.Advance(time.Minute)
	require.True(t, <-got)
}
