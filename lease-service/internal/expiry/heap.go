package expiry

import "time"

// The heap has four children per node: half as deep as a binary one, and the children share a cache line.
const children = 4

func (c *Clocks) less(a, b int) bool { return c.slots[c.heap[a]].key < c.slots[c.heap[b]].key }

func (c *Clocks) swap(a, b int) {
	c.heap[a], c.heap[b] = c.heap[b], c.heap[a]
	c.slots[c.heap[a]].pos, c.slots[c.heap[b]].pos = int32(a), int32(b)
}

func (c *Clocks) push(i int32) {
	c.heap = append(c.heap, i)
	at := len(c.heap) - 1
	c.slots[i].pos = int32(at)
	c.up(at)
}

// cut takes the element at a place out of the heap.
func (c *Clocks) cut(pos int32) {
	at, last := int(pos), len(c.heap)-1
	if at != last {
		c.swap(at, last)
	}
	c.slots[c.heap[last]].pos = -1
	c.heap = c.heap[:last]
	if at < last {
		c.down(at)
		c.up(at)
	}
}

func (c *Clocks) up(at int) {
	for at > 0 {
		parent := (at - 1) / children
		if !c.less(at, parent) {
			return
		}
		c.swap(at, parent)
		at = parent
	}
}

func (c *Clocks) down(at int) {
	for {
		first := at*children + 1
		least := at
		for child := first; child < first+children && child < len(c.heap); child++ {
			if c.less(child, least) {
				least = child
			}
		}
		if least == at {
			return
		}
		c.swap(at, least)
		at = least
	}
}

// first gives elements whose key is at most now, in about the order of their keys, and about limit of them if there are more.
func (c *Clocks) first(now time.Duration, limit int) []int32 {
	if len(c.heap) == 0 || c.slots[c.heap[0]].key > now {
		return nil
	}
	at, found := []int{0}, []int32{c.heap[0]}
	for next := 0; next < len(at) && len(found) < limit; next++ {
		for child := at[next]*children + 1; child <= at[next]*children+children && child < len(c.heap); child++ {
			if i := c.heap[child]; c.slots[i].key <= now {
				at, found = append(at, child), append(found, i)
			}
		}
	}
	return found
}

// before counts the elements from a place downwards whose key is at most now.
func (c *Clocks) before(now time.Duration, at int) int {
	if at >= len(c.heap) || c.slots[c.heap[at]].key > now {
		return 0
	}
	n := 1
	for child := at*children + 1; child <= at*children+children; child++ {
		n += c.before(now, child)
	}
	return n
}
