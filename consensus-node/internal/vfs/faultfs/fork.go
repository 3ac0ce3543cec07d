package faultfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// ForkAt makes a copy of the file system as it stands in the middle of the changing call that follows n further ones, before that call does
// anything, and hands it to fork, which must not use the original. What happens to one from then on does not happen to the other. The copy
// has no handles, locks or faults, and its chance comes from seed alone: Restart it to see what a power cut at that moment leaves,
// or use it as it is for what the end of the process leaves.
func (f *FS) ForkAt(n int, seed uint64, fork func(*FS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forkLeft, f.forkSeed, f.fork = n, seed, fork
}

// Fork makes the copy now.
func (f *FS) Fork(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.copyAs(seed)
}

// forkIfDue counts a changing call down to the copy. The caller holds mu.
func (f *FS) forkIfDue() {
	if f.fork == nil {
		return
	}
	if f.forkLeft--; f.forkLeft >= 0 {
		return
	}
	fork := f.fork
	f.fork = nil
	fork(f.copyAs(f.forkSeed))
}

// copyAs copies names and contents. The caller holds mu.
func (f *FS) copyAs(seed uint64) *FS {
	inodes := map[*inode]*inode{}
	same := func(n *inode) *inode {
		if n == nil {
			return nil
		}
		if inodes[n] == nil {
			// Pending changes keep the bytes they were given, which nobody changes.
			inodes[n] = &inode{cache: slices.Clone(n.cache), disk: slices.Clone(n.disk), pending: slices.Clone(n.pending)}
		}
		return inodes[n]
	}
	all := func(names map[string]*inode) map[string]*inode {
		out := make(map[string]*inode, len(names))
		for name, node := range names {
			out[name] = same(node)
		}
		return out
	}
	c := New(seed)
	c.rng = rand.New(rand.NewPCG(seed, 0x666f726b))
	c.dirs, c.names, c.disk, c.capacity = maps.Clone(f.dirs), all(f.names), all(f.disk), f.capacity
	for _, m := range f.moves {
		c.moves = append(c.moves, all(m))
	}
	return c
}
