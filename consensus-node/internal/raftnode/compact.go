package raftnode

// cutLog drops entries that nobody here needs any more: far enough behind what is applied, below what the database has durably, and not
// above an image that is on its way to a follower, which will go on from there.
func (n *Node) cutLog() {
	if n.storageBusy() || n.loop.incoming != nil {
		return
	}
	index, _, bytes := n.storage.extent()
	if target := n.cutTarget(index, bytes); target > index {
		mark := n.storage.cut(target)
		n.appendQ <- appendWork{cut: &mark} // has room
	}
}

// cutTarget is the index up to which the log may and should be cut, given the index before its first entry and the bytes it holds.
func (n *Node) cutTarget(mark, bytes uint64) uint64 {
	applied := n.status.applied.Load()
	target := uint64(0)
	if applied > mark && applied-mark >= n.cfg.SnapshotCount+n.cfg.CatchUpEntries {
		target = applied - n.cfg.CatchUpEntries
	}
	held := uint64(nothingHeld)
	for _, index := range n.loop.sending {
		held = min(held, index)
	}
	bound := n.cfg.LogBytesKept
	if held < nothingHeld {
		bound = n.cfg.LogBytesMax
	}
	if bytes > bound {
		target = max(target, n.storage.above(bound/2))
	} else {
		target = min(target, held)
	}
	if target <= mark {
		return target
	}
	// What raft has not heard of as applied may still be asked for.
	return min(target, n.raw.BasicStatus().Applied, n.cfg.Applier.Durable())
}

// LogBegins returns the index before the first entry that the log still holds; a member that has less needs a snapshot.
func (n *Node) LogBegins() uint64 {
	mark, _, _ := n.storage.extent()
	return mark
}
