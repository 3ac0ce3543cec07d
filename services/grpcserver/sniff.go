package grpcserver

import (
	"net"
	"time"
)

// preface is what every HTTP/2 client sends first (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// sniffWithin is the time a new connection has to say enough to be told apart.
const sniffWithin = 5 * time.Second

// sniffing at once: connections that have not said enough yet. More are closed at once.
const sniffsMax = 4096

// sniff reads until the connection is known to speak HTTP/2 or not to. That is the whole preface or the first byte that
// differs from it: an HTTP/1 method differs within three bytes. The returned connection gives the read bytes again.
func sniff(c net.Conn) (conn net.Conn, http2 bool, err error) {
	if err := c.SetReadDeadline(time.Now().Add(sniffWithin)); err != nil {
		return nil, false, err
	}
	buf := make([]byte, 0, len(preface))
	for len(buf) < len(preface) {
		n, err := c.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if string(buf) != preface[:len(buf)] {
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	return &replayed{Conn: c, head: buf}, string(buf) == preface, nil
}

// replayed is a connection whose first bytes were read already. One goroutine reads it at a time, as servers do.
type replayed struct {
	net.Conn
	head []byte
}

// Read gives the head first.
func (r *replayed) Read(p []byte) (int, error) {
	if len(r.head) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.head)
	r.head = r.head[n:]
	if len(r.head) == 0 {
		r.head = nil
	}
	return n, nil
}
