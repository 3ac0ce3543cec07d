package match

import (
	"strings"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// tree finds the ranges that contain a key: a treap ordered by (key, end), each node knowing the highest end below it.
// Priorities come from a counter through a mixing function, so that no choice of keys by clients can unbalance it.
type tree struct {
	root    *node
	counter uint64
}

// node is one range; groups with the same range and other filters share it.
type node struct {
	Range
	groups      []*Group
	priority    uint64
	left, right *node
	// top is the highest end in this subtree.
	top limit
}

// limit is an upper end: a key, or none at all.
type limit struct {
	key     string
	endless bool
}

func (l limit) above(key string) bool { return l.endless || l.key > key }

func (l limit) max(other limit) limit {
	if l.endless || (!other.endless && l.key >= other.key) {
		return l
	}
	return other
}

func (r Range) limit() limit { return limit{key: r.End, endless: r.endless()} }

func (r Range) compare(other Range) int {
	if c := strings.Compare(r.Key, other.Key); c != 0 {
		return c
	}
	return strings.Compare(r.End, other.End)
}

// stab gives the event to every group whose range contains the key.
func (t *tree) stab(key string, e *feedv1.Event, touched []*Group) []*Group {
	return t.root.stab(key, e, touched)
}

func (n *node) stab(key string, e *feedv1.Event, touched []*Group) []*Group {
	for n != nil && n.top.above(key) {
		touched = n.left.stab(key, e, touched)
		if n.Key > key {
			return touched // and so does everything to the right
		}
		if n.limit().above(key) {
			for _, g := range n.groups {
				touched = g.take(e, touched)
			}
		}
		n = n.right
	}
	return touched
}

func (t *tree) insert(g *Group) {
	t.counter++
	t.root = t.root.insert(g, mix(t.counter))
}

func (n *node) insert(g *Group, priority uint64) *node {
	if n == nil {
		return &node{Range: g.spec.Range, groups: []*Group{g}, priority: priority, top: g.spec.limit()}
	}
	switch c := g.spec.compare(n.Range); {
	case c == 0:
		n.groups = append(n.groups, g)
		return n
	case c < 0:
		n.left = n.left.insert(g, priority)
		if n.left.priority > n.priority {
			return n.rotateRight()
		}
	default:
		n.right = n.right.insert(g, priority)
		if n.right.priority > n.priority {
			return n.rotateLeft()
		}
	}
	n.update()
	return n
}

func (t *tree) remove(g *Group) { t.root = t.root.remove(g) }

func (n *node) remove(g *Group) *node {
	if n == nil {
		return nil
	}
	switch c := g.spec.compare(n.Range); {
	case c < 0:
		n.left = n.left.remove(g)
	case c > 0:
		n.right = n.right.remove(g)
	default:
		for i, other := range n.groups {
			if other == g {
				n.groups = append(n.groups[:i:i], n.groups[i+1:]...)
				break
			}
		}
		if len(n.groups) == 0 {
			return join(n.left, n.right)
		}
		return n
	}
	n.update()
	return n
}

// join makes one tree of two, of which the first lies before the second.
func join(a, b *node) *node {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = join(a.right, b)
		a.update()
		return a
	}
	b.left = join(a, b.left)
	b.update()
	return b
}

func (n *node) rotateRight() *node {
	l := n.left
	n.left, l.right = l.right, n
	n.update()
	l.update()
	return l
}

func (n *node) rotateLeft() *node {
	r := n.right
	n.right, r.left = r.left, n
	n.update()
	r.update()
	return r
}

func (n *node) update() {
	n.top = n.limit()
	if n.left != nil {
		n.top = n.top.max(n.left.top)
	}
	if n.right != nil {
		n.top = n.top.max(n.right.top)
	}
}

// mix spreads a counter over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x *= 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
