// Package bustest is the conformance suite of package bus: what every binding must do, run by each binding's tests. A
// binding over a network is tested where its server may be imported.
package bustest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/bus"
)

// Server is a bus with its server, made for one test.
type Server struct {
	// Connect makes a connection with the limits the server was opened with. The test closes it.
	Connect func(t *testing.T) bus.Bus
	// SetDown takes the server away (true) or brings it back (false).
	SetDown func(t *testing.T, down bool)
}

// patience bounds every wait; reaching it is a failure.
const patience = 15 * time.Second

// Run runs the suite; open makes a fresh server for each test and cleans it up with the test.
func Run(t *testing.T, open func(t *testing.T, limits bus.Limits) Server) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, func(*testing.T, bus.Limits) Server){
		"DeliversInOrder":          testDeliversInOrder,
		"CarriesHeaders":           testCarriesHeaders,
		"SubjectsAreApart":         testSubjectsAreApart,
		"Unsubscribe":              testUnsubscribe,
		"SlowConsumerLosesItsOwn":  testSlowConsumer,
		"RefusesWhatItCannotCarry": testRefuses,
		"Interruption":             testInterruption,
		"StartsWithoutServer":      testStartsWithoutServer,
		"Close":                    testClose,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
}

// ear is a subscription whose messages and gaps land in channels.
type ear struct {
	bus.Subscription
	messages chan bus.Message
	gaps     chan bus.Cause
}

func listen(t *testing.T, b bus.Bus, subject string) ear {
	t.Helper()
	e := ear{messages: make(chan bus.Message, 10_000), gaps: make(chan bus.Cause, 100)}
	var err error
	e.Subscription, err = b.Subscribe(subject,
		func(m bus.Message) { e.messages <- m }, func(c bus.Cause) { e.gaps <- c })
	require.NoError(t, err)
	return e
}

// connect makes a connection that stands.
func connect(t *testing.T, s Server) bus.Bus {
	t.Helper()
	b := s.Connect(t)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	eventually(t, b.Connected, "connected")
	return b
}

func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, patience, 2*time.Millisecond, what)
}

// What attune publishes.
const (
	probe   = "probe"
	attuned = "attuned "
)

// attune waits until what the publisher sends reaches the ear, and forgets the probes.
func attune(t *testing.T, publisher bus.Bus, subject string, e ear) {
	t.Helper()
	eventually(t, func() bool {
		_ = publisher.Publish(subject, nil, []byte(probe))
		select {
		case <-e.messages:
			return true
		case <-time.After(5 * time.Millisecond):
			return false
		}
	}, "a first message arrives")
	// One more, known by its text, so that late probes are behind us.
	mark := attuned + time.Now().String()
	require.NoError(t, publisher.Publish(subject, nil, []byte(mark)))
	for string(next(t, e).Payload) != mark {
		continue
	}
	for len(e.gaps) > 0 {
		<-e.gaps
	}
}

func next(t *testing.T, e ear) bus.Message {
	t.Helper()
	select {
	case m := <-e.messages:
		return m
	case <-time.After(patience):
		require.FailNow(t, "no message")
		return bus.Message{}
	}
}

// awaitGap waits for a notice of the cause and passes over others.
func awaitGap(t *testing.T, e ear, cause bus.Cause) {
	t.Helper()
	for {
		select {
		case c := <-e.gaps:
			if c == cause {
				return
			}
		case <-time.After(patience):
			require.FailNow(t, "no gap notice", "%s", cause)
		}
	}
}

// publishAll publishes messages and waits where the queue is full, so that none is dropped.
func publishAll(t *testing.T, b bus.Bus, subject string, n int) {
	t.Helper()
	for i := range n {
		payload := fmt.Appendf(nil, "%d", i)
		eventually(t, func() bool { return b.Publish(subject, nil, payload) == nil }, "published")
	}
}

func testDeliversInOrder(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a, b := connect(t, s), connect(t, s)
	own, other := listen(t, a, "x.changes"), listen(t, b, "x.changes")
	attune(t, a, "x.changes", own)
	attune(t, a, "x.changes", other)
	require.Zero(t, a.Dropped())
	const n = 1000
	publishAll(t, a, "x.changes", n)
	for _, e := range []ear{own, other} {
		for i := 0; i < n; {
			m := next(t, e)
			if text := string(m.Payload); text == probe || strings.HasPrefix(text, attuned) {
				continue // of the other ear
			}
			require.Equal(t, fmt.Sprint(i), string(m.Payload))
			require.Equal(t, "x.changes", m.Subject)
			i++
		}
		require.Empty(t, e.gaps)
	}
}

func testCarriesHeaders(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a := connect(t, s)
	e := listen(t, a, "x")
	attune(t, a, "x", e)
	header := bus.Header{}
	header.Set("traceparent", "00-1")
	require.NoError(t, a.Publish("x", header, []byte("p")))
	m := next(t, e)
	require.Equal(t, "00-1", m.Header.Get("traceparent"))
	require.Equal(t, []string{"traceparent"}, m.Header.Keys())
	require.NoError(t, a.Publish("x", nil, nil))
	m = next(t, e)
	require.Empty(t, m.Header.Get("traceparent"))
	require.Empty(t, m.Payload)
}

func testSubjectsAreApart(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a := connect(t, s)
	x, y := listen(t, a, "c.x"), listen(t, a, "c.y")
	attune(t, a, "c.x", x)
	attune(t, a, "c.y", y)
	require.NoError(t, a.Publish("c.x", nil, []byte("for x")))
	require.NoError(t, a.Publish("c.z", nil, []byte("for nobody")))
	require.NoError(t, a.Publish("c.y", nil, []byte("for y")))
	require.Equal(t, "for y", string(next(t, y).Payload))
	require.Equal(t, "for x", string(next(t, x).Payload))
	require.Empty(t, x.messages)
}

func testUnsubscribe(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a := connect(t, s)
	gone, stays := listen(t, a, "x"), listen(t, a, "x")
	attune(t, a, "x", gone)
	attune(t, a, "x", stays)
	require.NoError(t, gone.Unsubscribe())
	for len(gone.messages) > 0 {
		<-gone.messages
	}
	require.NoError(t, a.Publish("x", nil, []byte("after")))
	require.Equal(t, "after", string(next(t, stays).Payload))
	require.Empty(t, gone.messages)
}

func testSlowConsumer(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	const pending = 16
	s := open(t, bus.Limits{PendingMessagesMax: pending})
	a := connect(t, s)
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	gaps := make(chan bus.Cause, 1000)
	seen := make(chan string, 1000)
	slow, err := a.Subscribe("x", func(m bus.Message) {
		select {
		case entered <- struct{}{}:
		default:
		}
		<-release
		seen <- string(m.Payload)
	}, func(c bus.Cause) { gaps <- c })
	require.NoError(t, err)
	eventually(t, func() bool { _ = a.Publish("x", nil, []byte("first")); return len(entered) > 0 }, "the handler runs")
	for i := range 10 * pending {
		eventually(t, func() bool { return a.Publish("x", nil, fmt.Appendf(nil, "%d", i)) == nil }, "published")
	}
	// Another connection is not held up, and what it hears was published after all of the above.
	b := connect(t, s)
	e := listen(t, b, "y")
	attune(t, a, "y", e)
	close(release)
	eventually(t, func() bool { // whoever has caught up hears again
		_ = a.Publish("x", nil, []byte("last"))
		for len(seen) > 0 {
			if <-seen == "last" {
				return true
			}
		}
		return false
	}, "the slow one hears again")
	select {
	case c := <-gaps:
		require.Equal(t, bus.SlowConsumer, c)
	case <-time.After(patience):
		require.FailNow(t, "the slow consumer was not told")
	}
	require.NoError(t, slow.Unsubscribe())
}

func testRefuses(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a := connect(t, s)
	e := listen(t, a, "x")
	attune(t, a, "x", e)
	before := a.Dropped()
	require.ErrorIs(t, a.Publish("x", nil, make([]byte, bus.PayloadBytesMax+1)), bus.ErrTooLarge)
	for _, subject := range []string{"", "a b", "a.*", "a.>", ".a", "a.", "a..b"} {
		require.ErrorIs(t, a.Publish(subject, nil, nil), bus.ErrSubject, "%q", subject)
		_, err := a.Subscribe(subject, func(bus.Message) {}, func(bus.Cause) {})
		require.ErrorIs(t, err, bus.ErrSubject, "%q", subject)
	}
	require.Equal(t, before+8, a.Dropped())
	largest := make([]byte, bus.PayloadBytesMax)
	require.NoError(t, a.Publish("x", bus.Header{"k": {"v"}}, largest))
	require.Len(t, next(t, e).Payload, len(largest))
}

func testInterruption(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a, b := connect(t, s), connect(t, s)
	e := listen(t, b, "x")
	attune(t, a, "x", e)
	s.SetDown(t, true)
	awaitGap(t, e, bus.Disconnect)
	eventually(t, func() bool { return !a.Connected() && !b.Connected() }, "both notice")
	before := a.Dropped()
	require.ErrorIs(t, a.Publish("x", nil, []byte("lost")), bus.ErrDisconnected)
	require.Equal(t, before+1, a.Dropped())
	late := listen(t, b, "late") // subscribing works meanwhile
	s.SetDown(t, false)
	awaitGap(t, e, bus.Reconnect)
	eventually(t, func() bool { return a.Connected() && b.Connected() }, "both are back")
	eventually(t, func() bool {
		_ = a.Publish("x", nil, []byte("back"))
		return len(e.messages) > 0
	}, "messages flow again")
	require.Equal(t, "back", string(next(t, e).Payload), "nothing is replayed")
	attune(t, a, "late", late)
}

func testStartsWithoutServer(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	s.SetDown(t, true)
	b := s.Connect(t)
	defer func() { require.NoError(t, b.Close()) }()
	require.False(t, b.Connected())
	require.ErrorIs(t, b.Publish("x", nil, nil), bus.ErrDisconnected)
	e := listen(t, b, "x")
	s.SetDown(t, false)
	awaitGap(t, e, bus.Reconnect)
	attune(t, b, "x", e)
}

func testClose(t *testing.T, open func(*testing.T, bus.Limits) Server) {
	s := open(t, bus.Limits{})
	a, b := connect(t, s), connect(t, s)
	e := listen(t, b, "x")
	attune(t, a, "x", e)
	const n = 100
	publishAll(t, a, "x", n)
	require.NoError(t, a.Close())
	require.NoError(t, a.Close(), "twice is fine")
	for i := range n {
		require.Equal(t, fmt.Sprint(i), string(next(t, e).Payload), "what was queued is sent")
	}
	require.False(t, a.Connected())
	require.ErrorIs(t, a.Publish("x", nil, nil), bus.ErrClosed)
	_, err := a.Subscribe("x", func(bus.Message) {}, func(bus.Cause) {})
	require.ErrorIs(t, err, bus.ErrClosed)
	require.True(t, b.Connected(), "other connections stay")
}
