// Package runner runs a split Holdfast cluster as local processes: one
// nats-server, three consensus nodes, two watch-hubs, two lease-services and
// two proxies.
//
// It knows which program plays which part, which ports and folders each gets,
// in which order they start and stop, and how to ask one whether it is ready.
// It knows nothing of what they say to each other.
//
// It promises that every process it started has ended when Stop or a failed
// Start returns, that a process which ends by itself is reported and leaves the
// others alone, and that each line of output reaches the writer whole, with the
// name of its process in front. If the program that holds the Runner dies, the
// kernel ends the processes too (Linux).
//
// It asks its caller for programs that end on SIGTERM, answer their readiness
// URL with 200 once they serve, and do not move to another session; for a data
// folder that no other Runner uses; and for a call to Stop after a Start that
// succeeded.
package runner
