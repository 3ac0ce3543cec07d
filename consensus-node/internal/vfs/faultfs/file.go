package faultfs

import (
	"io"
	"io/fs"
	"slices"
)

// inode is a file's content twice: as processes see it and as the disk holds it.
type inode struct {
	cache, disk []byte
	pending     []change // in cache, not known to be on disk
}

// change is a write of data at off, or, with data nil, a new length: exact (truncate) or at least (preallocate).
type change struct {
	off   int64
	data  []byte
	size  int64
	atMin bool
}

func (c change) apply(content []byte) []byte {
	switch {
	case c.data != nil:
		content = grow(content, c.off+int64(len(c.data)))
		copy(content[c.off:], c.data)
	case c.atMin || c.size > int64(len(content)):
		content = grow(content, c.size)
	default:
		content = content[:c.size:c.size]
	}
	return content
}

// grow lengthens with zeros.
func grow(content []byte, size int64) []byte {
	if n := size - int64(len(content)); n > 0 {
		return append(content, make([]byte, n)...)
	}
	return content
}

// growth is by how many bytes the change lengthens the content.
func (c change) growth(content []byte) int64 {
	return max(c.size, c.off+int64(len(c.data))) - int64(len(content))
}

func (n *inode) change(c change) {
	n.cache = c.apply(n.cache)
	n.pending = append(n.pending, c)
}

func (n *inode) sync() {
	for _, c := range n.pending {
		n.disk = c.apply(n.disk)
	}
	n.pending = nil
}

type handle struct {
	fs       *FS
	node     *inode
	name     string
	epoch    int
	readOnly bool
	closed   bool
}

// usable says why the handle is not. The caller holds mu.
func (h *handle) usable() error {
	switch {
	case h.closed:
		return fs.ErrClosed
	case h.fs.off || h.epoch != h.fs.epoch:
		return ErrPowerCut
	}
	return nil
}

// ReadAt implements [io.ReaderAt].
func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return 0, pathError("read", h.name, err)
	}
	if off >= int64(len(h.node.cache)) {
		return 0, io.EOF
	}
	n := copy(p, h.node.cache[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements [io.WriterAt].
func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	size := int64(len(p))
	fault, err := h.begin(Op{Kind: KindWrite, Name: h.name, Off: off, Size: size}, change{off: off, data: p})
	if err != nil {
		p = p[:min(fault.Short, size)]
	}
	if len(p) > 0 {
		h.node.change(change{off: off, data: slices.Clone(p)})
	}
	if err != nil {
		return len(p), pathError("write", h.name, err)
	}
	return len(p), nil
}

// begin checks the handle, the plan for faults and the room on the disk.
func (h *handle) begin(op Op, c change) (Fault, error) {
	if err := h.usable(); err != nil {
		return Fault{}, err
	}
	if h.readOnly {
		return Fault{}, fs.ErrPermission
	}
	if fault, err := h.fs.step(op); err != nil {
		return fault, err
	}
	return Fault{}, h.fs.room(c.growth(h.node.cache))
}

// Truncate implements [vfs.File].
func (h *handle) Truncate(size int64) error {
	return h.resize(KindTruncate, change{size: size})
}

// Preallocate implements [vfs.File].
func (h *handle) Preallocate(size int64) error {
	return h.resize(KindPreallocate, change{size: size, atMin: true})
}

func (h *handle) resize(kind Kind, c change) error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if _, err := h.begin(Op{Kind: kind, Name: h.name, Size: c.size}, c); err != nil {
		return pathError(string(kind), h.name, err)
	}
	h.node.change(c)
	return nil
}

// Size implements [vfs.File].
func (h *handle) Size() (int64, error) {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return 0, pathError("stat", h.name, err)
	}
	return int64(len(h.node.cache)), nil
}

// Datasync implements [vfs.File].
func (h *handle) Datasync() error { return h.Sync() }

// Sync implements [vfs.File]. One that fails leaves the pages visible and clean, so that nothing writes them again.
func (h *handle) Sync() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.usable(); err != nil {
		return pathError("sync", h.name, err)
	}
	if _, err := h.fs.step(Op{Kind: KindSync, Name: h.name}); err != nil {
		if !h.fs.off { // a power cut decides by itself what was under way
			h.node.pending = nil
		}
		return pathError("sync", h.name, err)
	}
	h.node.sync()
	return nil
}

// Close implements [io.Closer].
func (h *handle) Close() error {
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if h.closed {
		return pathError("close", h.name, fs.ErrClosed)
	}
	h.closed = true
	return nil
}
