package watchsim

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/holdfastdb/holdfast/services/direct"
)

// network joins processes by name; its lines can be held, as by a network that drops packets, and processes be gone.
type network struct {
	mu      sync.Mutex
	changed chan struct{}
	conns   map[string]*direct.Conn // by address
	held    map[[2]string]bool      // by from and address; an empty address: all
}

func newNetwork() *network {
	return &network{changed: make(chan struct{}), conns: map[string]*direct.Conn{}, held: map[[2]string]bool{}}
}

func (n *network) do(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// serve makes an address answer.
func (n *network) serve(address string, register func(grpc.ServiceRegistrar)) {
	conn := direct.New(address)
	register(conn)
	n.do(func() { n.conns[address] = conn })
}

// gone breaks all that is joined with an address, and lets nobody reach it any more.
func (n *network) gone(address string) {
	var conn *direct.Conn
	n.do(func() { conn = n.conns[address]; delete(n.conns, address) })
	if conn != nil {
		conn.Close()
	}
}

// hold holds or frees a line.
func (n *network) hold(from, address string, held bool) {
	n.do(func() {
		if held {
			n.held[[2]string{from, address}] = true
		} else {
			delete(n.held, [2]string{from, address})
		}
	})
}

// pass waits until a line is free; the lines of a process that was killed carry nothing any more.
func (n *network) pass(ctx context.Context, l *line) error {
	from, address := l.from, l.address
	for {
		if l.dead.Load() {
			return status.Error(codes.Unavailable, "this process was killed")
		}
		n.mu.Lock()
		held, changed := n.held[[2]string{from, address}] || n.held[[2]string{from, ""}], n.changed
		n.mu.Unlock()
		if !held {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// line is the connection of one process with another.
type line struct {
	network       *network
	from, address string
	dead          *atomic.Bool
}

// Close is of Conn: lines are not owned by who uses them.
func (l *line) Close() error { return nil }

func (l *line) conn(ctx context.Context) (*direct.Conn, error) {
	if err := l.network.pass(ctx, l); err != nil {
		return nil, err
	}
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if conn := l.network.conns[l.address]; conn != nil {
		return conn, nil
	}
	return nil, status.Errorf(codes.Unavailable, "nobody is at %s", l.address)
}

// Invoke is of grpc.ClientConnInterface.
func (l *line) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	conn, err := l.conn(ctx)
	if err != nil {
		return err
	}
	if err := conn.Invoke(ctx, method, args, reply, opts...); err != nil {
		return err
	}
	return l.network.pass(ctx, l)
}

// NewStream is of grpc.ClientConnInterface.
func (l *line) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	conn, err := l.conn(ctx)
	if err != nil {
		return nil, err
	}
	stream, err := conn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &heldStream{ClientStream: stream, line: l}, nil
}

type heldStream struct {
	grpc.ClientStream
	line *line
}

// SendMsg waits while the line is held.
func (s *heldStream) SendMsg(m any) error {
	if err := s.line.network.pass(s.Context(), s.line); err != nil {
		return err
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg waits while the line is held.
func (s *heldStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	return s.line.network.pass(s.Context(), s.line)
}

// pipes is a listener whose connections never leave the process, so that they wait in the bubble's time.
type pipes struct {
	mu      sync.Mutex
	waiting chan net.Conn
	closed  chan struct{}
	conns   []net.Conn
}

func newPipes() *pipes { return &pipes{waiting: make(chan net.Conn), closed: make(chan struct{})} }

// Accept is of net.Listener.
func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.waiting:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close is of net.Listener.
func (p *pipes) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// Addr is of net.Listener.
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// dial connects.
func (p *pipes) dial(ctx context.Context, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.waiting <- server:
		p.mu.Lock()
		p.conns = append(p.conns, server, client)
		p.mu.Unlock()
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kill ends the listener and all its connections.
func (p *pipes) kill() {
	_ = p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}
