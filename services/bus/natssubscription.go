package bus

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
)

// natsSubscription is one handler. nats.go calls it from two goroutines, one with messages and one with everything that
// happens to the connection; the first may take its time and the second must not wait for it.
type natsSubscription struct {
	bus     *natsBus
	sub     *nats.Subscription
	handler func(Message)
	onGap   func(Cause)

	mu      sync.Mutex // held while handler or onGap runs
	stopped bool
	dropped int // of sub.Dropped, told so far

	gapsMu sync.Mutex
	gaps   []Cause // not told yet, each at most once
}

func (b *natsBus) Subscribe(subject string, handler func(Message), onGap func(Cause)) (Subscription, error) {
	if !validSubject(subject) {
		return nil, ErrSubject
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped.Load() {
		return nil, ErrClosed
	}
	s := &natsSubscription{bus: b, handler: handler, onGap: onGap}
	s.mu.Lock() // the first message waits until s.sub is set
	defer s.mu.Unlock()
	sub, err := b.conn.Subscribe(subject, s.receive)
	if err != nil {
		return nil, fmt.Errorf("bus: subscribe to %s: %w", subject, err)
	}
	s.sub = sub
	if err := sub.SetPendingLimits(b.limits.PendingMessagesMax, b.limits.PendingBytesMax); err != nil {
		return nil, errors.Join(fmt.Errorf("bus: bound the queue of %s: %w", subject, err), sub.Unsubscribe())
	}
	b.subscriptions[s] = true
	return s, nil
}

func (s *natsSubscription) receive(m *nats.Msg) {
	s.mu.Lock()
	if !s.stopped {
		// nats.go reports only the first drop until the subscription has caught up; the counter has them all.
		if n, err := s.sub.Dropped(); err == nil && n != s.dropped {
			s.dropped = n
			s.note(SlowConsumer)
		}
		s.tellLocked()
		s.handler(Message{Subject: m.Subject, Header: Header(m.Header), Payload: m.Data})
	}
	s.mu.Unlock()
	s.tell()
}

// gap notes a gap and tells it, unless the handler runs: then the goroutine that runs it tells it next.
func (s *natsSubscription) gap(cause Cause) {
	s.note(cause)
	s.tell()
}

func (s *natsSubscription) note(cause Cause) {
	s.gapsMu.Lock()
	defer s.gapsMu.Unlock()
	if !slices.Contains(s.gaps, cause) {
		s.gaps = append(s.gaps, cause)
	}
}

// tell tells the gaps noted. Whoever holds s.mu calls it after letting go, so none is forgotten.
func (s *natsSubscription) tell() {
	for s.untold() && s.mu.TryLock() {
		s.tellLocked()
		s.mu.Unlock()
	}
}

func (s *natsSubscription) untold() bool {
	s.gapsMu.Lock()
	defer s.gapsMu.Unlock()
	return len(s.gaps) > 0
}

func (s *natsSubscription) tellLocked() {
	s.gapsMu.Lock()
	gaps := s.gaps
	s.gaps = nil
	s.gapsMu.Unlock()
	for _, cause := range gaps {
		if !s.stopped {
			s.onGap(cause)
		}
	}
}

func (s *natsSubscription) Unsubscribe() error {
	s.bus.mu.Lock()
	delete(s.bus.subscriptions, s)
	s.bus.mu.Unlock()
	s.mu.Lock() // waits for a handler that runs
	s.stopped = true
	s.mu.Unlock()
	if err := s.sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		return fmt.Errorf("bus: unsubscribe: %w", err)
	}
	return nil
}
