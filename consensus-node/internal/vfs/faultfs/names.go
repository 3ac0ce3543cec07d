package faultfs

import (
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/holdfastdb/holdfast/consensus-node/internal/vfs"
)

// move is one change of names that is not durable yet; a rename changes two in one step.
type move map[string]*inode

// MkdirAll implements [vfs.FS].
func (f *FS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return ErrPowerCut
	}
	f.dirs[filepath.Clean(dir)] = true
	return nil
}

// Create implements [vfs.FS].
func (f *FS) Create(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(Op{Kind: KindCreate, Name: name}); err != nil {
		return nil, pathError("create", name, err)
	}
	if f.names[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	node := &inode{}
	f.move(move{name: node})
	return &handle{fs: f, node: node, name: name, epoch: f.epoch}, nil
}

// Open implements [vfs.FS].
func (f *FS) Open(name string) (vfs.File, error) { return f.open(name, false) }

// OpenReadOnly implements [vfs.FS].
func (f *FS) OpenReadOnly(name string) (vfs.File, error) { return f.open(name, true) }

func (f *FS) open(name string, readOnly bool) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, pathError("open", name, ErrPowerCut)
	}
	node := f.names[name]
	if node == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &handle{fs: f, node: node, name: name, epoch: f.epoch, readOnly: readOnly}, nil
}

// Rename implements [vfs.FS].
func (f *FS) Rename(oldname, newname string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(Op{Kind: KindRename, Name: oldname}); err != nil {
		return pathError("rename", oldname, err)
	}
	node := f.names[oldname]
	if node == nil {
		return pathError("rename", oldname, fs.ErrNotExist)
	}
	f.move(move{oldname: nil, newname: node})
	return nil
}

// Remove implements [vfs.FS].
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(Op{Kind: KindRemove, Name: name}); err != nil {
		return pathError("remove", name, err)
	}
	if f.names[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	f.move(move{name: nil})
	return nil
}

func (f *FS) move(m move) {
	m.apply(f.names)
	f.moves = append(f.moves, m)
}

func (m move) apply(names map[string]*inode) {
	for name, node := range m {
		if node == nil {
			delete(names, name)
		} else {
			names[name] = node
		}
	}
}

// List implements [vfs.FS].
func (f *FS) List(dir string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, pathError("list", dir, ErrPowerCut)
	}
	if !f.dirs[filepath.Clean(dir)] {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	var names []string
	for name := range f.names {
		if filepath.Dir(name) == filepath.Clean(dir) {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements [vfs.FS].
func (f *FS) SyncDir(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(Op{Kind: KindSyncDir, Name: dir}); err != nil {
		return pathError("syncdir", dir, err)
	}
	rest := f.moves[:0]
	for _, m := range f.moves {
		if m.in(dir) {
			m.apply(f.disk)
		} else {
			rest = append(rest, m)
		}
	}
	f.moves = rest
	return nil
}

func (m move) in(dir string) bool {
	for name := range m {
		if filepath.Dir(name) == filepath.Clean(dir) {
			return true
		}
	}
	return false
}

// Lock implements [vfs.FS].
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.off {
		return nil, pathError("lock", name, ErrPowerCut)
	}
	if f.locks[name] != nil {
		return nil, pathError("lock", name, vfs.ErrLocked)
	}
	if f.names[name] == nil {
		f.move(move{name: &inode{}})
	}
	f.locks[name] = &lock{fs: f, name: name}
	return f.locks[name], nil
}

type lock struct {
	fs   *FS
	name string
}

// Close gives the lock back, unless a power cut or the end of the process did already.
func (l *lock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if l.fs.locks[l.name] == l {
		delete(l.fs.locks, l.name)
	}
	return nil
}
