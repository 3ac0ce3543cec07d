package fault

import "fmt"

// violationsMax bounds what one check reports.
const violationsMax = 5

// checkOrder says where a watcher of everything from a revision on has not seen each revision up to the last exactly
// once and in order. Every write of the workload makes an event, so revisions have no holes; a revision may hold several
// keys, each once.
func checkOrder(seen []change, from, last int64) (violations []string) {
	at, keys := from-1, map[string]bool{}
	for i, c := range seen {
		switch {
		case c.Revision == at && keys[c.Key]:
			violations = append(violations, fmt.Sprintf("event %d came twice: %s", i, c))
		case c.Revision == at:
		case c.Revision < at:
			violations = append(violations, fmt.Sprintf("event %d came after revision %d: %s", i, at, c))
			continue
		default:
			if c.Revision != at+1 {
				violations = append(violations, fmt.Sprintf("revisions %d to %d are missing before %s", at+1, c.Revision-1, c))
			}
			clear(keys)
			at = c.Revision
		}
		keys[c.Key] = true
		if len(violations) >= violationsMax {
			return violations
		}
	}
	if at < last {
		violations = append(violations, fmt.Sprintf("revisions %d to %d are missing at the end", at+1, last))
	}
	return violations
}

// checkAcknowledged says which acknowledged writes a full history lacks at the revision that the client was told.
func checkAcknowledged(acknowledged, seen []change) (violations []string) {
	there := make(map[change]bool, len(seen))
	for _, c := range seen {
		there[c] = true
	}
	for _, c := range acknowledged {
		if !there[c] {
			violations = append(violations, fmt.Sprintf("acknowledged, and in no history: %s", c))
			if len(violations) >= violationsMax {
				break
			}
		}
	}
	return violations
}

// checkOnce says which values were written more than once: each is given out once, so a second time is a write that was
// carried out twice.
func checkOnce(seen []change) (violations []string) {
	first := map[string]change{}
	for _, c := range seen {
		if c.Deleted {
			continue
		}
		if before, again := first[c.Value]; again {
			violations = append(violations, fmt.Sprintf("carried out twice: %s and %s", before, c))
		}
		first[c.Value] = c
	}
	return violations[:min(len(violations), violationsMax)]
}

// final is what keys hold after the changes.
func final(seen []change) map[string]string {
	out := map[string]string{}
	for _, c := range seen {
		if c.Deleted {
			delete(out, c.Key)
		} else {
			out[c.Key] = c.Value
		}
	}
	return out
}
