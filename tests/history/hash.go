package history

// CheckHashes says where nodes gave different hashes for the same revision and compact revision.
func CheckHashes(hashes []Hash) []Violation {
	f := &findings{check: "hash"}
	type point struct{ revision, compact int64 }
	first := map[point]Hash{}
	for _, h := range hashes {
		at := point{h.Revision, h.Compact}
		if before, ok := first[at]; !ok {
			first[at] = h
		} else if before.Hash != h.Hash {
			f.add("at %d, compacted %d, %s has %08x and %s has %08x", h.Revision, h.Compact, before.Node, before.Hash, h.Node, h.Hash)
		}
	}
	return f.all
}
