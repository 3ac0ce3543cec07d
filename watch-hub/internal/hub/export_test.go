package hub

import "fmt"

// Places shows what waits where.
func Places(c *Core) string {
	parked := 0
	for _, st := range c.streams {
		parked += len(st.parked)
	}
	return fmt.Sprintf("unplaced %d future %d ready %d late %d behind %d again %d parked %d sweep %+v passes %d", len(c.unplaced), c.futures.len(),
		c.ready.len(), c.late.len(), c.behind.len(), len(c.again), parked, c.sweep, len(c.passes))
}
