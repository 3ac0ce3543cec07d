package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Mode is what becomes of what is sent over a link.
type Mode int

// The modes.
const (
	Passed Mode = iota
	Held
	Refused
)

// Link is the way from one process to another, by name.
type Link struct{ From, To string }

// Network is the relays of one cluster. Its methods may be called at the same time.
type Network struct {
	name func(remote net.Addr) string // which process is at the other end of a connection

	mu        sync.Mutex
	links     map[Link]Mode
	changed   chan struct{} // closed and made anew when links change
	listeners []net.Listener
	conns     map[*pair]bool
	closed    bool
	wg        sync.WaitGroup
}

// New makes a network without relays.
func New() *Network { return newNetwork(newNames().of) }

func newNetwork(name func(net.Addr) string) *Network {
	return &Network{name: name, links: map[Link]Mode{}, changed: make(chan struct{}), conns: map[*pair]bool{}}
}

// Listen starts a relay to the process of that name, which listens on target, and gives the relay's port on 127.0.0.1.
func (n *Network) Listen(ctx context.Context, name, target string) (port int, err error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, fmt.Errorf("%v is no TCP address", l.Addr())
	}
	n.mu.Lock()
	n.listeners = append(n.listeners, l)
	n.mu.Unlock()
	n.wg.Go(func() { n.accept(l, name, target) })
	return address.Port, nil
}

// Set changes links, all of them at once.
func (n *Network) Set(mode Mode, links ...Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range links {
		n.links[l] = mode
	}
	n.tell()
}

// Mend lets everything pass again.
func (n *Network) Mend() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.links)
	n.tell()
}

// tell wakes what waits and breaks the connections that use a refused link.
func (n *Network) tell() {
	close(n.changed)
	n.changed = make(chan struct{})
	for p := range n.conns {
		if n.refused(p.from, p.to) {
			p.close()
		}
	}
}

func (n *Network) refused(a, b string) bool {
	return n.links[Link{a, b}] == Refused || n.links[Link{b, a}] == Refused
}

// Close ends all relays.
func (n *Network) Close() {
	n.mu.Lock()
	n.closed = true
	for _, l := range n.listeners {
		_ = l.Close()
	}
	for p := range n.conns {
		p.close()
	}
	n.tell()
	n.mu.Unlock()
	n.wg.Wait()
}

func (n *Network) accept(l net.Listener, name, target string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n.wg.Go(func() { n.serve(c, name, target) })
	}
}

// pair is a connection from a process to the relay and the one from there to the other process.
type pair struct {
	from, to         string
	incoming, onward net.Conn
}

func (p *pair) close() {
	_ = p.incoming.Close()
	_ = p.onward.Close()
}

func (n *Network) serve(incoming net.Conn, to, target string) {
	defer incoming.Close()
	from := n.name(incoming.RemoteAddr())
	// A link that is held also holds up the beginning of a connection.
	if n.wait(from, to) != nil || n.wait(to, from) != nil {
		return
	}
	onward, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	p := &pair{from, to, incoming, onward}
	defer p.close()
	n.mu.Lock()
	refuse := n.closed || n.refused(from, to)
	if !refuse {
		n.conns[p] = true
	}
	n.mu.Unlock()
	if refuse {
		return
	}
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.conns, p)
	}()
	var both sync.WaitGroup
	both.Go(func() { n.carry(incoming, onward, from, to) })
	both.Go(func() { n.carry(onward, incoming, to, from) })
	both.Wait()
}

var errBroken = errors.New("the link is broken")

// wait returns when the link passes.
func (n *Network) wait(from, to string) error {
	for {
		n.mu.Lock()
		mode, changed, closed := n.links[Link{from, to}], n.changed, n.closed
		n.mu.Unlock()
		switch {
		case closed || mode == Refused:
			return errBroken
		case mode == Passed:
			return nil
		}
		<-changed
	}
}

// carry passes on what one end sends until either ends or the link breaks. The end of what is sent travels the link too.
func (n *Network) carry(source, sink net.Conn, from, to string) {
	const chunkBytes = 64 << 10
	buffer := make([]byte, chunkBytes)
	for {
		count, err := source.Read(buffer)
		if n.wait(from, to) != nil {
			_ = source.Close()
			_ = sink.Close()
			return
		}
		if count > 0 {
			if _, failed := sink.Write(buffer[:count]); failed != nil {
				closeRead(source)
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = sink.Close()
			}
			closeWrite(sink)
			return
		}
	}
}

func closeRead(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseRead()
	}
}

func closeWrite(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}
