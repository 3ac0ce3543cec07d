package watchsim

import (
	"math/rand/v2"
	"sync"
	"time"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
)

// weather is what a bus does to messages, in percent, and the longest that it holds one back.
type weather struct {
	lose, repeat, delay int
	delayMax            time.Duration
}

// badBus is a bus that loses, repeats, delays and thereby reorders. It has one subject.
type badBus struct {
	mu      sync.Mutex
	rng     *rand.Rand
	weather weather
	down    bool
	deaf    map[string]bool
	subs    map[*badSubscription]bool
}

func newBadBus(seed uint64) *badBus {
	return &badBus{rng: rand.New(rand.NewPCG(seed, 2)), deaf: map[string]bool{}, subs: map[*badSubscription]bool{}}
}

// do changes the bus.
func (b *badBus) do(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// setDown takes the bus away, or brings it back.
func (b *badBus) setDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	cause := bus.Reconnect
	if down {
		cause = bus.Disconnect
	}
	for s := range b.subs {
		s.put(func() { s.onGap(cause) })
	}
}

func (b *badBus) publish(subject string, value bus.Value) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return bus.ErrDisconnected
	}
	for s := range b.subs {
		if b.deaf[s.name] || b.rng.IntN(100) < b.weather.lose {
			continue
		}
		copies := 1
		if b.rng.IntN(100) < b.weather.repeat {
			copies = 2
		}
		for range copies {
			message := bus.Message{Subject: subject, Value: value}
			if b.rng.IntN(100) >= b.weather.delay {
				s.put(func() { s.handler(message) })
				continue
			}
			time.AfterFunc(time.Duration(b.rng.Int64N(int64(b.weather.delayMax))), func() { s.put(func() { s.handler(message) }) })
		}
	}
	return nil
}

// badConn is one process's connection.
type badConn struct {
	*badBus
	name string
}

// Publish is not used: nobody here publishes bytes.
func (c badConn) Publish(string, bus.Header, []byte) error { return bus.ErrTooLarge }

// PublishValue is of bus.Bus.
func (c badConn) PublishValue(subject string, _ bus.Header, value bus.Value) error {
	if _, ok := value.(*feedv1.Message); !ok {
		return bus.ErrSubject
	}
	return c.publish(subject, value)
}

// Subscribe is of bus.Bus.
func (c badConn) Subscribe(_ string, handler func(bus.Message), onGap func(bus.Cause)) (bus.Subscription, error) {
	s := &badSubscription{bus: c.badBus, name: c.name, handler: handler, onGap: onGap, turns: make(chan func(), 4096), quit: make(chan struct{})}
	c.do(func() { c.subs[s] = true })
	s.running.Go(s.run)
	return s, nil
}

// Connected is of bus.Bus.
func (c badConn) Connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.down
}

// Dropped is of bus.Bus.
func (c badConn) Dropped() uint64 { return 0 }

// Close is of bus.Bus.
func (c badConn) Close() error { return nil }

type badSubscription struct {
	bus     *badBus
	name    string
	handler func(bus.Message)
	onGap   func(bus.Cause)
	turns   chan func()
	quit    chan struct{}
	running sync.WaitGroup
}

// put gives the subscription something to do; what does not fit is lost.
func (s *badSubscription) put(turn func()) {
	select {
	case s.turns <- turn:
	default:
	}
}

func (s *badSubscription) run() {
	for {
		select {
		case turn := <-s.turns:
			turn()
		case <-s.quit:
			return
		}
	}
}

// Unsubscribe is of bus.Subscription.
func (s *badSubscription) Unsubscribe() error {
	s.bus.do(func() { delete(s.bus.subs, s) })
	close(s.quit)
	s.running.Wait()
	return nil
}
