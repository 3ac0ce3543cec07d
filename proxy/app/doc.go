// Package app makes a proxy out of its parts: the stateless edge that speaks etcd's API to clients, and calls consensus
// nodes, watch-hubs and lease-services for them.
//
// A process calls Main. Standalone calls New with Dependencies that reach its own parts by direct bindings, and runs
// the Parts in its own group. A proxy keeps nothing on disk.
package app
