package consistency

import "slices"

// Hash is the HashKV of one member.
type Hash struct {
	Sum uint32
	// Revision is the one that was asked for, Compact the member's compact revision, Head its newest revision at the time.
	Revision, Compact, Head int64
}

// Sample is what one member said.
type Sample struct {
	Member uint64
	Hash   Hash
	// Err is why there is no hash: not reached in time, or the member could not make one.
	Err error
}

// comparable tells whether two members' hashes must be the same.
func (s Sample) comparable(other Sample) bool {
	return s.Err == nil && other.Err == nil && s.Hash.Revision == other.Hash.Revision && s.Hash.Compact == other.Hash.Compact
}

// everybody is who is accused when nobody can tell who is wrong.
const everybody = 0

// judge compares the others with this member's own sample, and gives whom to accuse. members is the size of the cluster.
func judge(own Sample, others []Sample, members int) (accused []uint64, compared int) {
	byHash := map[uint32][]uint64{own.Hash.Sum: {own.Member}}
	for _, other := range others {
		if own.comparable(other) {
			byHash[other.Hash.Sum] = append(byHash[other.Hash.Sum], other.Member)
			compared++
		}
	}
	if len(byHash) == 1 {
		return nil, compared
	}
	majority := false
	for _, holders := range byHash {
		if len(holders) > members/2 {
			majority = true
			continue
		}
		accused = append(accused, holders...)
	}
	if !majority {
		return []uint64{everybody}, compared
	}
	slices.Sort(accused)
	return accused, compared
}

// ahead gives the members that claim more than the leader knows, whose revisions head and compact were read after they spoke.
func ahead(others []Sample, head, compact int64) (accused []uint64) {
	for _, other := range others {
		if other.Err == nil && (other.Hash.Head > head || other.Hash.Compact > compact) {
			accused = append(accused, other.Member)
		}
	}
	return accused
}
