package runner

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// lineBytesMax bounds what is kept of a line that has not ended yet; a longer one
// goes out in pieces.
const lineBytesMax = 64 << 10

// output is the one writer that all processes share: whole lines, one at a time.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *output) printf(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = fmt.Fprintf(o.w, format+"\n", args...)
}

// prefixed is one process's way to the output. exec calls Write from one goroutine
// for both of the process's streams, and flush after it is done, so it needs no
// lock of its own.
type prefixed struct {
	out    *output
	prefix string
	rest   []byte // a line that has not ended yet
}

// Write never fails: a lost terminal must not end a database.
func (p *prefixed) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			p.rest = append(p.rest, b...)
			if len(p.rest) >= lineBytesMax {
				p.flush()
			}
			break
		}
		p.rest = append(p.rest, b[:end]...)
		p.emit()
		b = b[end+1:]
	}
	return n, nil
}

// flush sends what stands without an end of line.
func (p *prefixed) flush() {
	if len(p.rest) > 0 {
		p.emit()
	}
}

func (p *prefixed) emit() {
	p.out.printf("%s | %s", p.prefix, p.rest)
	p.rest = p.rest[:0]
}
