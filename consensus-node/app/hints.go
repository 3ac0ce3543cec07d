package app

import (
	"slices"
	"sync"

	"github.com/holdfastdb/holdfast/consensus-node/internal/member"
)

// hintsMax bounds the members that are kept without being in the list; a cluster has far fewer.
const hintsMax = 64

// hints are where members that send messages to this one say they listen. A member that was away while others came, or moved, could not
// answer its leader by its own list, and would never get a newer one.
type hints struct {
	mu   sync.Mutex
	urls map[uint64][]string
}

// hear takes in what a member says; it tells whether that is news.
func (h *hints) hear(id uint64, urls []string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(urls) == 0 || slices.Equal(h.urls[id], urls) || h.urls[id] == nil && len(h.urls) >= hintsMax {
		return false
	}
	if h.urls == nil {
		h.urls = map[uint64][]string{}
	}
	h.urls[id] = slices.Clone(urls)
	return true
}

// complete adds to the peers of a list what is known beside it. Who was removed is forgotten.
func (h *hints) complete(peers map[uint64][]string, list *member.List) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, urls := range h.urls {
		if list.IsRemoved(id) {
			delete(h.urls, id)
			continue
		}
		known := slices.Clone(peers[id])
		for _, url := range urls {
			if !slices.Contains(known, url) {
				known = append(known, url)
			}
		}
		peers[id] = known
	}
}

// heard is told that a member sends messages to this one.
func (n *Node) heard(id uint64, peerURLs []string) {
	if !n.hints.hear(id, peerURLs) {
		return
	}
	select {
	case n.members <- struct{}{}:
	default:
	}
}
