package node

import "time"

// etcd's pace of a compaction.
const (
	DefaultCompactBatch = 1000
	DefaultCompactSleep = 10 * time.Millisecond
)

// restsUnderLoad is how many times longer it rests between two steps while entries come: each step is work for the committer too, and both take
// the processor and the disk from those entries. A compaction of a million revisions takes ten seconds on an idle node, and half a minute
// on a busy one.
const restsUnderLoad = 3

func (c *Config) setDefaults() {
	if c.CompactBatch <= 0 {
		c.CompactBatch = DefaultCompactBatch
	}
	if c.CompactSleep == 0 {
		c.CompactSleep = DefaultCompactSleep
	}
	if c.Observer == nil {
		c.Observer = unobserved{}
	}
}

// carryOn asks for the next step of compaction if one is left, and otherwise tells those who wait that it is done. The caller holds mu.
func (n *Node) carryOn() {
	if n.machine.Compacting() {
		notify(n.compact)
		return
	}
	n.compacted.advance(uint64(max(0, n.machine.View().KV.CompactRevision())))
}

// compactWait is how long the next step has to wait, so that there is a rest after the last one.
func (n *Node) compactWait() time.Duration { return max(0, time.Until(n.rested)) }

// compactStep does a bounded part of the physical compaction and asks for the next. Entries go before it and after it: it holds what
// they need for the time of one step alone.
func (n *Node) compactStep() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	rest := n.cfg.CompactSleep
	if index := n.machine.Index(); index != n.stepped {
		n.stepped = index
		rest *= restsUnderLoad
	}
	defer func() { n.rested = time.Now().Add(rest) }()
	if n.cfg.Busy != nil && n.cfg.Busy() {
		rest = max(rest, DefaultCompactSleep)
	} else if n.machine.Compacting() {
		began := time.Now()
		batch, done := n.machine.CompactStep(n.cfg.CompactBatch)
		if err := n.cfg.Store.Apply(storeBatch(batch)); err != nil {
			return err
		}
		if err := n.publish(); err != nil {
			return err
		}
		n.compacting.step(n.cfg.Observer, began, len(batch.Drop), done)
	}
	n.carryOn()
	return nil
}
