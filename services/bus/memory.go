package bus

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// Memory is the bus of one process. Parts that would each have a connection to NATS each Connect to it. It keeps nothing
// but the subscriptions' queues.
type Memory struct {
	limits Limits

	mu       sync.RWMutex
	subjects map[string][]*memorySubscription
	down     bool
}

// NewMemory makes a bus without connections.
func NewMemory(limits Limits) *Memory {
	return &Memory{limits: limits.orDefault(), subjects: map[string][]*memorySubscription{}}
}

// Connect makes a connection.
func (m *Memory) Connect() Bus { return &memoryBus{memory: m} }

// SetDown makes the bus behave as if its server was gone (true) or back (false), so that tests of what depends on a bus
// can lose it. It does nothing if the bus is in that state already.
func (m *Memory) SetDown(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down == down {
		return
	}
	m.down = down
	cause := Reconnect
	if down {
		cause = Disconnect
	}
	for _, subscriptions := range m.subjects {
		for _, s := range subscriptions {
			s.queue.gap(cause)
		}
	}
}

// publish puts the message into every subscription's queue. It holds the lock shared only: each queue has its own.
func (m *Memory) publish(msg Message) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.down {
		return ErrDisconnected
	}
	for _, s := range m.subjects[msg.Subject] {
		if err := s.queue.put(msg); errors.Is(err, ErrFull) {
			s.queue.gap(SlowConsumer)
		}
	}
	return nil
}

func (m *Memory) add(s *memorySubscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.subjects[s.subject] = append(m.subjects[s.subject], s)
}

func (m *Memory) remove(s *memorySubscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rest := slices.DeleteFunc(m.subjects[s.subject], func(other *memorySubscription) bool { return other == s })
	if len(rest) == 0 {
		delete(m.subjects, s.subject)
		return
	}
	m.subjects[s.subject] = rest
}

// memoryBus is one connection.
type memoryBus struct {
	memory  *Memory
	dropped atomic.Uint64

	mu            sync.Mutex
	closed        bool
	subscriptions map[*memorySubscription]bool
}

func (b *memoryBus) Publish(subject string, header Header, payload []byte) error {
	return b.counted(b.publish(Message{Subject: subject, Header: header, Payload: payload}))
}

func (b *memoryBus) PublishValue(subject string, header Header, value Value) error {
	return b.counted(b.publish(Message{Subject: subject, Header: header, Value: value}))
}

// counted counts a message that was dropped.
func (b *memoryBus) counted(err error) error {
	if err != nil {
		b.dropped.Add(1)
	}
	return err
}

func (b *memoryBus) publish(m Message) error {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case !validSubject(m.Subject):
		return ErrSubject
	case m.bytes() > PayloadBytesMax:
		return ErrTooLarge
	}
	return b.memory.publish(m)
}

func (b *memoryBus) Subscribe(subject string, handler func(Message), onGap func(Cause)) (Subscription, error) {
	if !validSubject(subject) {
		return nil, ErrSubject
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	s := &memorySubscription{
		bus: b, subject: subject,
		queue: newQueue(b.memory.limits.PendingMessagesMax, b.memory.limits.PendingBytesMax),
		ended: make(chan struct{}),
	}
	if b.subscriptions == nil {
		b.subscriptions = map[*memorySubscription]bool{}
	}
	b.subscriptions[s] = true
	b.memory.add(s)
	go s.deliver(handler, onGap)
	return s, nil
}

func (b *memoryBus) Connected() bool {
	b.mu.Lock()
	closed := b.closed
	b.mu.Unlock()
	b.memory.mu.RLock()
	defer b.memory.mu.RUnlock()
	return !closed && !b.memory.down
}

func (b *memoryBus) Dropped() uint64 { return b.dropped.Load() }

func (b *memoryBus) Close() error {
	b.mu.Lock()
	b.closed = true
	subscriptions := b.subscriptions
	b.subscriptions = nil
	b.mu.Unlock()
	for s := range subscriptions {
		s.end()
	}
	return nil
}

// memorySubscription is one handler with its queue and goroutine.
type memorySubscription struct {
	bus     *memoryBus
	subject string
	queue   *queue
	stopped atomic.Bool
	ended   chan struct{}
}

func (s *memorySubscription) deliver(handler func(Message), onGap func(Cause)) {
	defer close(s.ended)
	for {
		gaps, messages, ok := s.queue.take()
		if !ok {
			return
		}
		for _, cause := range gaps {
			if s.stopped.Load() {
				return
			}
			onGap(cause)
		}
		for _, m := range messages {
			if s.stopped.Load() {
				return
			}
			handler(m)
		}
	}
}

func (s *memorySubscription) Unsubscribe() error {
	s.bus.mu.Lock()
	delete(s.bus.subscriptions, s)
	s.bus.mu.Unlock()
	s.end()
	return nil
}

func (s *memorySubscription) end() {
	s.stopped.Store(true)
	s.bus.memory.remove(s)
	s.queue.close(true)
	<-s.ended
}
