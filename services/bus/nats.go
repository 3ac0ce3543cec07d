package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/holdfastdb/holdfast/services/failure"
)

// NATSConfig says where the bus is.
type NATSConfig struct {
	// URL is one or more nats:// URLs joined by commas.
	URL string
	// Name is what the server shows for this connection.
	Name   string
	Limits Limits
	Logger *slog.Logger
	// InProcess is a nats-server in this process; if it is set, the URL is only a name.
	InProcess InProcess
}

// InProcess is what a nats-server offers to connect without a socket.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// The times of a connection: a dead peer is noticed after three pings' time, and a server that is back is found within
// a second. nats.go's defaults are minutes.
const (
	pingEvery       = 3 * time.Second
	pingsMissedMax  = 2
	reconnectEvery  = 500 * time.Millisecond
	reconnectWithin = 250 * time.Millisecond // of random delay, so that a restart is no stampede
	connectWithin   = 2 * time.Second
	closeWithin     = time.Second
)

// natsBus is a connection to nats-server.
type natsBus struct {
	logger  *slog.Logger
	limits  Limits
	conn    *nats.Conn
	queue   *queue
	up      atomic.Bool // the connection's own lock may be held by a write that waits for a slow server
	dropped atomic.Uint64
	written chan struct{} // closed when the writer has ended

	stopped atomic.Bool // Close was called

	mu            sync.Mutex // guards subscriptions, and orders Subscribe and Close
	subscriptions map[*natsSubscription]bool
}

// NewNATS makes a connection. It connects in the background, for ever: a server that is not there yet is no error. A
// malformed URL is of kind failure.Config.
func NewNATS(config NATSConfig) (Bus, error) {
	b := &natsBus{
		logger: config.Logger, limits: config.Limits.orDefault(),
		written: make(chan struct{}), subscriptions: map[*natsSubscription]bool{},
	}
	b.queue = newQueue(b.limits.PublishMessagesMax, b.limits.PublishBytesMax)
	opts := b.options(config.Name)
	if config.InProcess != nil {
		opts = append(opts, nats.InProcessServer(config.InProcess))
	}
	conn, err := nats.Connect(config.URL, opts...)
	if err != nil {
		return nil, failure.Wrap(failure.Config, fmt.Sprintf("the bus at %s cannot be used", config.URL), err)
	}
	b.conn = conn
	go b.write()
	return b, nil
}

func (b *natsBus) options(name string) []nats.Option {
	return []nats.Option{
		nats.Name(name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectEvery),
		nats.ReconnectJitter(reconnectWithin, reconnectWithin),
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(connectWithin),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsMissedMax),
		// No replay: what piles up while the server is away would arrive late and claim to be live.
		nats.ReconnectBufSize(-1),
		nats.ConnectHandler(b.connected),
		nats.ReconnectHandler(b.connected),
		nats.DisconnectErrHandler(b.disconnected),
		nats.NoCallbacksAfterClientClose(),
		nats.ErrorHandler(b.asyncError),
	}
}

func (b *natsBus) connected(c *nats.Conn) {
	before := b.turn(true)
	b.logger.Info("bus connected", "server", c.ConnectedUrlRedacted())
	notify(before, Reconnect)
}

func (b *natsBus) disconnected(_ *nats.Conn, err error) {
	before := b.turn(false)
	b.logger.Warn("bus disconnected", "error", err)
	notify(before, Disconnect)
}

// turn says that the connection is up or down, and returns the subscriptions made before: they alone have a gap. Who
// subscribes after Connected has said so missed nothing.
func (b *natsBus) turn(up bool) []*natsSubscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.up.Store(up)
	return b.currentLocked()
}

// asyncError is where nats.go tells what it would otherwise do in silence.
func (b *natsBus) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if sub == nil || !errors.Is(err, nats.ErrSlowConsumer) {
		b.logger.Warn("bus error", "error", err)
		return
	}
	for _, s := range b.current() {
		if s.sub == sub {
			s.gap(SlowConsumer)
		}
	}
}

func notify(subscriptions []*natsSubscription, cause Cause) {
	for _, s := range subscriptions {
		s.gap(cause)
	}
}

func (b *natsBus) current() []*natsSubscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.currentLocked()
}

func (b *natsBus) currentLocked() []*natsSubscription {
	list := make([]*natsSubscription, 0, len(b.subscriptions))
	for s := range b.subscriptions {
		list = append(list, s)
	}
	return list
}

// write drains the queue. It alone publishes on the connection, whose lock a slow server can hold.
func (b *natsBus) write() {
	defer close(b.written)
	for {
		_, messages, ok := b.queue.take()
		if !ok {
			return
		}
		for _, m := range messages {
			err := b.conn.PublishMsg(&nats.Msg{Subject: m.Subject, Header: nats.Header(m.Header), Data: m.Payload})
			if err != nil {
				b.dropped.Add(1)
			}
		}
	}
}

func (b *natsBus) Publish(subject string, header Header, payload []byte) error {
	err := b.enqueue(Message{Subject: subject, Header: header, Payload: payload})
	if err != nil {
		b.dropped.Add(1)
	}
	return err
}

func (b *natsBus) PublishValue(subject string, header Header, value Value) error {
	payload, err := value.MarshalVT()
	if err != nil {
		b.dropped.Add(1)
		return fmt.Errorf("bus: encode for %s: %w", subject, err)
	}
	return b.Publish(subject, header, payload)
}

func (b *natsBus) enqueue(m Message) error {
	switch {
	case !validSubject(m.Subject):
		return ErrSubject
	case len(m.Payload) > PayloadBytesMax:
		return ErrTooLarge
	case b.stopped.Load():
		return ErrClosed
	case !b.up.Load():
		return ErrDisconnected
	}
	return b.queue.put(m)
}

func (b *natsBus) Connected() bool { return b.up.Load() && !b.stopped.Load() }

func (b *natsBus) Dropped() uint64 { return b.dropped.Load() }

func (b *natsBus) Close() error {
	b.mu.Lock()
	again := b.stopped.Swap(true)
	b.mu.Unlock()
	if again {
		<-b.written
		return nil
	}
	for _, s := range b.current() {
		_ = s.Unsubscribe()
	}
	b.queue.close(false)
	select {
	case <-b.written:
		if b.up.Load() {
			_ = b.conn.FlushTimeout(closeWithin)
		}
	case <-time.After(closeWithin):
		b.queue.close(true)
	}
	b.conn.Close() // frees a writer that is blocked
	<-b.written
	return nil
}
