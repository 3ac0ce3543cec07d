package history

import (
	"bufio"
	"fmt"
	"io"
	"slices"
)

// Print writes the record as text: operations by their calls, then what each watch delivered, then the leases.
func (r *Record) Print(to io.Writer) error {
	w := bufio.NewWriter(to)
	ops := r.Ops()
	slices.SortStableFunc(ops, func(a, b Op) int { return int(a.Call - b.Call) })
	for i := range ops {
		fmt.Fprintln(w, &ops[i])
	}
	for _, h := range r.Watches() {
		fmt.Fprintf(w, "\n%s of [%q,%q) from %d, with previous values %t, ended %v\n", h.Name, h.Key, h.End, h.Start, h.WantsPrev, h.Ended())
		for _, d := range h.Deliveries() {
			fmt.Fprintf(w, "%v header %d bookmark %t %v\n", d.At, d.Revision, d.Bookmark, d.Events)
		}
	}
	for _, l := range r.Leases() {
		l.mu.Lock()
		fmt.Fprintf(w, "\nlease %x of %v asked for at %v, granted %d, revoked %v, gone %v, renewed %v\n",
			l.ID, l.TTL, l.GrantCall, l.granted, l.revoked, l.gone, l.renewals)
		l.mu.Unlock()
	}
	return w.Flush()
}
