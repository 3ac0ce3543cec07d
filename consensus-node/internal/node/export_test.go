package node

import "time"

// CompactStep does one step of the physical compaction, for tests that stop between two.
func (n *Node) CompactStep() (done bool, err error) {
	err = n.compactStep()
	return !n.machine.Compacting(), err
}

// CompactWait is how long the next step of the physical compaction has to wait.
func (n *Node) CompactWait() time.Duration { return n.compactWait() }
