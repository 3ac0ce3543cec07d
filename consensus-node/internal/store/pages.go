package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"

	"go.etcd.io/bbolt"
)

// PageError says which page of a database is not as bbolt wrote it.
type PageError struct {
	Page   uint64
	Offset int64 // of the page in the file, in bytes
	Err    error // what is wrong with it
}

// Error implements error, on one line.
func (e *PageError) Error() string {
	return fmt.Sprintf("page %d at byte %d: %v", e.Page, e.Offset, e.Err)
}

// Unwrap gives what is wrong with the page.
func (e *PageError) Unwrap() error { return e.Err }

// What bbolt writes: a page begins with its id, type, count of elements and of pages that follow and belong to it. Then come the
// elements, each with where its data lies, and then the data. Numbers have the order of the machine's bytes.
const (
	pageHeader   = 16
	pageElement  = 16
	branchFlag   = 0x01
	leafFlag     = 0x02
	bucketFlag   = 0x01
	bucketHeader = 16
	firstPage    = 2 // behind the two with the metadata
	// windowBytes is how much of the file is read at once: leaves that were written together lie side by side.
	windowBytes = 256 << 10
)

// checkPages follows every page of the tree that the transaction reads and checks that it is one that bbolt has written: bbolt keeps
// no checksums of them and believes what it reads. Its writer leaves no room between the data of two elements, so that a changed
// count, place or length shows; so do keys out of order. Changed bytes within a value do not show here. The error is a *PageError, or
// one of the file's. The check reads every page in use once, as a start does anyway.
func checkPages(file io.ReaderAt, tx *bbolt.Tx) error {
	c := newPageCheck(file, tx)
	return c.tree(uint64(tx.Cursor().Bucket().Root()), nil, nil)
}

func newPageCheck(file io.ReaderAt, tx *bbolt.Tx) *pageCheck {
	size := int64(tx.DB().Info().PageSize)
	c := &pageCheck{file: file, size: size, pages: uint64(tx.Size() / size)}
	c.seen = make([]uint64, c.pages/64+1)
	return c
}

type pageCheck struct {
	file  io.ReaderAt
	size  int64  // of a page
	pages uint64 // as many as the database has
	seen  []uint64
	// The window is what was read last.
	window []byte
	at     int64
}

func (c *pageCheck) bad(id uint64, format string, args ...any) error {
	return &PageError{Page: id, Offset: int64(id) * c.size, Err: fmt.Errorf(format, args...)}
}

// tree checks the pages from a root down. All keys must be at least low and below high, where those are given.
func (c *pageCheck) tree(id uint64, low, high []byte) error {
	data, err := c.page(id)
	if err != nil {
		return err
	}
	p, reason := parsePage(data, id)
	if reason == "" {
		reason = p.order(low, high)
	}
	if reason != "" {
		return c.bad(id, "%s", reason)
	}
	if p.leaf && !p.buckets {
		return nil
	}
	p.data = slices.Clone(p.data) // the window moves on
	for i := range p.count {
		if err := c.below(id, p, i, high); err != nil {
			return err
		}
	}
	return nil
}

// below checks what an element leads to: a page of the same tree, or the tree of a bucket.
func (c *pageCheck) below(id uint64, p page, i int, high []byte) error {
	if !p.leaf {
		if i+1 < p.count {
			high = p.key(i + 1)
		}
		return c.tree(p.child(i), p.key(i), high)
	}
	if !p.bucket(i) {
		return nil
	}
	value := p.value(i)
	if len(value) < bucketHeader {
		return c.bad(id, "the bucket %q has %d bytes", p.key(i), len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return c.tree(root, nil, nil)
	}
	// A small bucket lies in the value itself, as a page without a number.
	inline, reason := parsePage(value[bucketHeader:], 0)
	if reason == "" {
		reason = inline.order(nil, nil)
	}
	if reason == "" && (!inline.leaf || inline.buckets) {
		reason = "is no leaf"
	}
	if reason != "" {
		return c.bad(id, "the bucket %q within it: %s", p.key(i), reason)
	}
	return nil
}

// find gives the page in which a key of the tree below a root lies, or would lie, and the key's value.
func (c *pageCheck) find(root uint64, key []byte) (id uint64, value []byte, err error) {
	for id = root; ; {
		data, err := c.page(id)
		if err != nil {
			return 0, nil, err
		}
		p, reason := parsePage(data, id)
		if reason != "" {
			return 0, nil, c.bad(id, "%s", reason)
		}
		at, found := sort.Find(p.count, func(i int) int { return bytes.Compare(key, p.key(i)) })
		switch {
		case p.leaf && found:
			return id, p.value(at), nil
		case p.leaf:
			return id, nil, nil
		case !found:
			at = max(at-1, 0)
		}
		id = p.child(at)
	}
}

// locate gives the page in which a row lies. That of a bucket so small that it lies in another's page is that page.
func (c *pageCheck) locate(root uint64, bucket string, key []byte) (uint64, error) {
	id, value, err := c.find(root, []byte(bucket))
	if err != nil || len(value) < bucketHeader {
		return id, err
	}
	if root = binary.NativeEndian.Uint64(value); root == 0 {
		return id, nil
	}
	id, _, err = c.find(root, key)
	return id, err
}

// damaged says that a row of the base is not what we have stored there: in which page it lies, and what is wrong.
func (b *base) damaged(bucket string, key []byte, wrong error) error {
	path := b.file.db.Path()
	file, err := os.Open(path)
	if err != nil {
		return damaged(path, fmt.Errorf("bucket %q: %w", bucket, wrong))
	}
	defer file.Close()
	c := newPageCheck(file, b.tx)
	id, err := c.locate(uint64(b.tx.Cursor().Bucket().Root()), bucket, key)
	if err != nil {
		return damaged(path, err)
	}
	return damaged(path, c.bad(id, "bucket %q: %w", bucket, wrong))
}

// page reads a page with those that belong to it. The bytes are valid until the next call.
func (c *pageCheck) page(id uint64) ([]byte, error) {
	if id < firstPage || id >= c.pages {
		return nil, c.bad(id, "a page leads to it, and the database has the pages %d to %d", firstPage, c.pages-1)
	}
	head, err := c.bytes(id, 1)
	if err != nil {
		return nil, err
	}
	pages := 1 + uint64(binary.NativeEndian.Uint32(head[12:]))
	if id+pages > c.pages {
		return nil, c.bad(id, "it says that it is %d pages long, and the database ends with page %d", pages, c.pages-1)
	}
	for n := id; n < id+pages; n++ {
		if c.seen[n/64]&(1<<(n%64)) != 0 {
			return nil, c.bad(n, "two pages lead to it")
		}
		c.seen[n/64] |= 1 << (n % 64)
	}
	return c.bytes(id, pages)
}

func (c *pageCheck) bytes(id, pages uint64) ([]byte, error) {
	from, length := int64(id)*c.size, int64(pages)*c.size
	if from < c.at || from+length > c.at+int64(len(c.window)) {
		if int64(cap(c.window)) < max(length, windowBytes) {
			c.window = make([]byte, max(length, windowBytes))
		}
		c.window, c.at = c.window[:cap(c.window)], from
		n, err := c.file.ReadAt(c.window, from)
		c.window = c.window[:n]
		if int64(n) < length {
			if errors.Is(err, io.EOF) {
				return nil, c.bad(id, "the file ends at byte %d", from+int64(n))
			}
			return nil, fmt.Errorf("read page %d: %w", id, err)
		}
	}
	return c.window[from-c.at:][:length], nil
}

// page is one that was found to be whole.
type page struct {
	data    []byte
	count   int
	leaf    bool
	buckets bool // some element is a bucket
}

// parsePage checks a page's own bytes; the reason is empty if they are as bbolt writes them.
func parsePage(data []byte, id uint64) (p page, reason string) {
	if len(data) < pageHeader {
		return p, fmt.Sprintf("it has %d bytes", len(data))
	}
	flags, count := binary.NativeEndian.Uint16(data[8:]), int(binary.NativeEndian.Uint16(data[10:]))
	switch got := binary.NativeEndian.Uint64(data); {
	case got != id:
		return p, fmt.Sprintf("it says that it is page %d", got)
	case flags != branchFlag && flags != leafFlag:
		return p, fmt.Sprintf("its type is %#x, neither a branch nor a leaf", flags)
	case flags == branchFlag && count == 0:
		return p, "it is a branch and leads nowhere"
	}
	p = page{data: data, count: count, leaf: flags == leafFlag}
	end := pageHeader + count*pageElement
	for i := range count {
		if end > len(data) || p.start(i) != end || p.keyLen(i) == 0 {
			return p, fmt.Sprintf("element %d of %d is not where it belongs", i, count)
		}
		if kind := p.number(i, 0); p.leaf && kind&^bucketFlag != 0 {
			return p, fmt.Sprintf("element %d of %d has the type %#x", i, count, kind)
		}
		end += p.keyLen(i) + p.valueLen(i)
		p.buckets = p.buckets || p.leaf && p.bucket(i)
	}
	if end > len(data) {
		return p, fmt.Sprintf("its %d elements need %d bytes and it has %d", count, end, len(data))
	}
	return p, ""
}

// order checks that the keys rise, from low on and to below high, where those are given.
func (p page) order(low, high []byte) (reason string) {
	before := low
	for i := range p.count {
		key := p.key(i)
		if c := bytes.Compare(before, key); c > 0 || c == 0 && i > 0 {
			return fmt.Sprintf("key %d of %d, %x, is not above the one before it, %x", i, p.count, key, before)
		}
		before = key
	}
	if high != nil && p.count > 0 && bytes.Compare(before, high) >= 0 {
		return fmt.Sprintf("its last key, %x, belongs to a later page, which begins with %x", before, high)
	}
	return ""
}

func (p page) element(i int) []byte { return p.data[pageHeader+i*pageElement:] }

func (p page) number(i, at int) int { return int(binary.NativeEndian.Uint32(p.element(i)[at:])) }

// start is where the data of an element begins, which says so from its own place on.
func (p page) start(i int) int {
	at := 0
	if p.leaf {
		at = 4
	}
	return pageHeader + i*pageElement + p.number(i, at)
}

func (p page) keyLen(i int) int {
	if p.leaf {
		return p.number(i, 8)
	}
	return p.number(i, 4)
}

func (p page) valueLen(i int) int {
	if p.leaf {
		return p.number(i, 12)
	}
	return 0
}

func (p page) key(i int) []byte { return p.data[p.start(i):][:p.keyLen(i)] }

func (p page) value(i int) []byte { return p.data[p.start(i)+p.keyLen(i):][:p.valueLen(i)] }

func (p page) bucket(i int) bool { return p.number(i, 0)&bucketFlag != 0 }

func (p page) child(i int) uint64 { return binary.NativeEndian.Uint64(p.element(i)[8:]) }
