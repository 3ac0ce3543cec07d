package node

// CompactStep does one step of the physical compaction, for tests that stop between two.
func (n *Node) CompactStep() (done bool, err error) {
	err = n.compactStep()
	return !n.machine.Compacting(), err
}
