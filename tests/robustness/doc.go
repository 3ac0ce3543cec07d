// Package robustness runs clusters of real processes under faults of chance while clients write, read, watch and hold
// leases, and holds what the clients were told against every promise. README.md says how to use it and what it has found.
//
// A system is a cluster with relays between its processes and one member's data on a small disk of its own. A fault
// happens to a system, is over after a while, and says what must go on meanwhile. The workload knows nothing of faults, and
// the checks (package history) know of neither.
package robustness
