package grpcserver

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// mux accepts on one listener and hands each connection to one of two.
type mux struct {
	logger *slog.Logger
	under  net.Listener
	http2  *branch
	http1  *branch

	quit chan struct{}
	once sync.Once
	slot chan struct{} // one token for each connection being sniffed

	mu       sync.Mutex
	sniffing map[net.Conn]bool
	pending  sync.WaitGroup
}

func newMux(logger *slog.Logger, under net.Listener) *mux {
	m := &mux{
		logger: logger, under: under,
		quit: make(chan struct{}), slot: make(chan struct{}, sniffsMax), sniffing: map[net.Conn]bool{},
	}
	m.http2, m.http1 = newBranch(m), newBranch(m)
	return m
}

// acceptPause is the wait after a failed accept (out of file descriptors, say), so that it does not spin.
const acceptPause = 50 * time.Millisecond

// serve accepts until close; it returns when every connection is handed on.
func (m *mux) serve() error {
	defer m.pending.Wait()
	for {
		c, err := m.under.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			select {
			case <-m.quit:
				return nil
			default:
				return err
			}
		default:
			m.logger.Warn("accept failed", "address", m.under.Addr().String(), "error", err)
			select {
			case <-m.quit:
				return nil
			case <-time.After(acceptPause):
			}
			continue
		}
		m.admit(c)
	}
}

// admit sniffs the connection on a goroutine of its own, if there is room.
func (m *mux) admit(c net.Conn) {
	select {
	case m.slot <- struct{}{}:
	default:
		m.logger.Warn("too many silent connections, one closed", "remote", c.RemoteAddr().String())
		_ = c.Close()
		return
	}
	m.mu.Lock()
	m.sniffing[c] = true
	m.mu.Unlock()
	m.pending.Go(func() {
		conn, http2, err := sniff(c)
		m.mu.Lock()
		delete(m.sniffing, c)
		m.mu.Unlock()
		<-m.slot
		if err != nil {
			_ = c.Close()
			return
		}
		to := m.http1
		if http2 {
			to = m.http2
		}
		to.give(conn)
	})
}

// close stops accepting and ends connections that are still being told apart.
func (m *mux) close() {
	m.once.Do(func() {
		close(m.quit)
		_ = m.under.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		for c := range m.sniffing {
			_ = c.Close()
		}
	})
}

// branch is the listener that one of the two servers accepts on.
type branch struct {
	mux    *mux
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newBranch(m *mux) *branch {
	return &branch{mux: m, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// give hands the connection to the server, or closes it if the server is gone.
func (b *branch) give(c net.Conn) {
	select {
	case b.conns <- c:
	case <-b.closed:
		_ = c.Close()
	case <-b.mux.quit:
		_ = c.Close()
	}
}

// Accept waits for the next connection of this kind.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	case <-b.mux.quit:
		return nil, net.ErrClosed
	}
}

// Close ends this kind of connection; the other goes on.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr is the address of the real listener.
func (b *branch) Addr() net.Addr { return b.mux.under.Addr() }
