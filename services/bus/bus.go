// Package bus carries what fans out between services: applied changes, lease events, views. It is a fast lane and never
// the truth: a message may be lost, and whoever subscribes must be able to notice and to fetch what it missed elsewhere.
//
// There are two bindings of one interface: NATS for processes (NewNATS; the only place that knows nats.go), and Memory
// for the parts of one process. The suite in package bustest holds for both.
//
// # What a Bus promises
//
//   - Publish never waits. A bounded queue stands before the wire; past it, or while the wire is down, the message is
//     dropped, counted and reported to the caller.
//   - Messages that one Bus publishes on one subject reach each subscriber in that order, each at most once. Between
//     publishers there is no order. A publisher's own subscriptions get its messages too.
//   - Each subscription has its own bounded queue and its own goroutine: a slow handler loses messages of its own and
//     delays nobody.
//   - Loss on the subscriber's side is told by onGap, with the cause. A notice may come late, after messages from behind
//     the gap, and a message may be lost before it ever reached the subscriber's side. So onGap is a reason to look
//     closer at once; what proves that nothing is missing are positions inside the messages.
//   - Nothing old is replayed after an interruption.
//
// # What it asks
//
// A payload, a value and a header that were passed to be published, and those of a Message, are shared: nobody changes them any more.
// Handlers may take their time, but must return for Unsubscribe and Close to return; onGap must be quick.
package bus

import (
	"errors"
	"fmt"
	"strings"
)

// Cause is why messages may have been missed; it is also the value of a metric's label.
type Cause string

// The causes.
const (
	// SlowConsumer: the subscription's queue was full and messages were dropped.
	SlowConsumer Cause = "slow_consumer"
	// Disconnect: the connection was lost; from now on nothing arrives.
	Disconnect Cause = "disconnect"
	// Reconnect: the connection is back; what was published in between did not arrive.
	Reconnect Cause = "reconnect"
)

// The errors of Publish and Subscribe. In each case of Publish the message is dropped and counted.
var (
	ErrFull         = errors.New("bus: the queue is full")
	ErrDisconnected = errors.New("bus: not connected")
	ErrTooLarge     = errors.New("bus: the message is larger than the bus carries")
	ErrClosed       = errors.New("bus: closed")
	ErrSubject      = errors.New("bus: the subject must be words joined by dots, without * and >")
)

// PayloadBytesMax bounds a payload: nats-server's default of 1 MiB less room for a header.
const PayloadBytesMax = 1<<20 - 4<<10

// Header is what goes with a payload: a trace context, say. It is a carrier for package telemetry. Keys are
// case-sensitive.
type Header map[string][]string

// Get is the first value of the key, or "".
func (h Header) Get(key string) string {
	if values := h[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set replaces the values of the key; h must not be nil.
func (h Header) Set(key, value string) { h[key] = []string{value} }

// Keys are all keys.
func (h Header) Keys() []string {
	keys := make([]string, 0, len(h))
	for key := range h {
		keys = append(keys, key)
	}
	return keys
}

// Value is a payload in its decoded form, a protobuf message.
type Value interface {
	SizeVT() int
	MarshalVT() ([]byte, error)
}

// Message is what a handler gets.
type Message struct {
	Subject string
	Header  Header // nil if there is none
	Payload []byte
	// Value takes the place of Payload if a publisher of this process has published it, and nothing lies between; see Decode.
	Value Value
}

// Decode gives a message's content: the very value that a publisher of this process has published, or what its payload says.
func Decode[M any, P interface {
	*M
	Value
	UnmarshalVT(payload []byte) error
}](m Message) (P, error) {
	if m.Value != nil {
		value, ok := m.Value.(P)
		if !ok {
			return nil, fmt.Errorf("bus: a %T was published on %s", m.Value, m.Subject)
		}
		return value, nil
	}
	value := P(new(M))
	return value, value.UnmarshalVT(m.Payload)
}

// Bus is a connection to the bus. All methods may be called at once from any goroutine.
type Bus interface {
	// Publish queues a message; see the package comment for the errors. The header may be nil.
	Publish(subject string, header Header, payload []byte) error
	// PublishValue queues a message that is encoded if it leaves the process, and handed over as it is otherwise.
	PublishValue(subject string, header Header, value Value) error
	// Subscribe calls handler for each message on exactly that subject (there are no wildcards), and onGap when messages
	// may have been missed; the two never run at once for one subscription. It works while disconnected; messages come
	// from some moment after the connection stands.
	Subscribe(subject string, handler func(Message), onGap func(Cause)) (Subscription, error)
	// Connected tells whether the wire is up.
	Connected() bool
	// Dropped counts the messages that Publish or the queue behind it dropped.
	Dropped() uint64
	// Close sends what is queued if that takes no longer than a second, ends all subscriptions and disconnects.
	Close() error
}

// Subscription is one handler on one subject.
type Subscription interface {
	// Unsubscribe ends it; neither handler nor onGap runs once it has returned. Not to be called from either.
	Unsubscribe() error
}

// Limits bound the queues; zero fields have the defaults. What the consumer of a queue has just taken counts no more, so
// up to twice a bound is in memory.
type Limits struct {
	// PublishMessagesMax and PublishBytesMax bound what waits to be sent; 8192 and 32 MiB.
	PublishMessagesMax int
	PublishBytesMax    int
	// PendingMessagesMax and PendingBytesMax bound what waits for one subscription's handler; 16384 and 64 MiB.
	PendingMessagesMax int
	PendingBytesMax    int
}

func (l Limits) orDefault() Limits {
	or := func(value *int, fallback int) {
		if *value == 0 {
			*value = fallback
		}
	}
	or(&l.PublishMessagesMax, 8192)
	or(&l.PublishBytesMax, 32<<20)
	or(&l.PendingMessagesMax, 16384)
	or(&l.PendingBytesMax, 64<<20)
	return l
}

// validSubject tells whether the subject is one that both bindings carry as it is.
func validSubject(subject string) bool {
	if strings.ContainsAny(subject, " \t\r\n*>") {
		return false
	}
	for word := range strings.SplitSeq(subject, ".") {
		if word == "" {
			return false
		}
	}
	return true
}

// bytes is the length of the payload, encoded or not.
func (m *Message) bytes() int {
	if m.Value != nil {
		return m.Value.SizeVT()
	}
	return len(m.Payload)
}

// size is what a message counts against a bound in bytes: the payload and a share for everything around it.
func size(payload int) int { return payload + 64 }
