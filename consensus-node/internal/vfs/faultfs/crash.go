package faultfs

import (
	"fmt"
	"maps"
	"slices"
)

// sectorSize is what a disk writes in one piece.
const sectorSize = 512

// Kill ends the process that uses the file system: its handles die and its locks go, but the page cache stays.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch++
	f.left = -1
	clear(f.locks)
}

// Restart cuts the power, if it is not cut yet, and gives it back: what was not synced is kept, lost or torn.
func (f *FS) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.moves {
		if f.rng.IntN(2) == 0 {
			m.apply(f.disk)
		}
	}
	f.moves = nil
	f.names = maps.Clone(f.disk)
	// In the order of the names, so that one seed gives one outcome.
	seen := map[*inode]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.names)) {
		if node := f.names[name]; !seen[node] {
			seen[node] = true
			node.crash(f)
		}
	}
	clear(f.locks)
	f.epoch++
	f.off, f.left = false, -1
}

// crash decides the fate of each pending change.
func (n *inode) crash(f *FS) {
	for _, c := range n.pending {
		switch f.rng.IntN(3) {
		case 0: // lost
		case 1:
			n.disk = c.apply(n.disk)
		default:
			n.disk = tear(f, c, n.disk)
		}
	}
	n.pending = nil
	n.cache = slices.Clone(n.disk)
}

// tear writes a random choice of the sectors that the change touches. A new length has no parts: it is kept.
func tear(f *FS, c change, content []byte) []byte {
	if c.data == nil {
		return c.apply(content)
	}
	for data, off := c.data, c.off; len(data) > 0; {
		n := min(int64(len(data)), sectorSize-off%sectorSize)
		if f.rng.IntN(2) == 0 {
			content = change{off: off, data: data[:n]}.apply(content)
		}
		data, off = data[n:], off+n
	}
	return content
}

// Flip inverts one bit of a file in the cache and on the disk, as a medium that rots does.
func (f *FS) Flip(name string, off int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := f.names[name]
	if node == nil || off >= int64(len(node.cache)) {
		return fmt.Errorf("faultfs: no byte %d in %s", off, name)
	}
	node.cache[off] ^= 1 << (bit & 7)
	if off < int64(len(node.disk)) {
		node.disk[off] ^= 1 << (bit & 7)
	}
	return nil
}

// Content returns a copy of what processes see of the file, nil if there is none.
func (f *FS) Content(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if node := f.names[name]; node != nil {
		return slices.Clone(node.cache)
	}
	return nil
}

// SetContent puts a whole durable file in place: a test's way to plant any bytes.
func (f *FS) SetContent(name string, content []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	node := &inode{cache: slices.Clone(content), disk: slices.Clone(content)}
	f.names[name], f.disk[name] = node, node
}
