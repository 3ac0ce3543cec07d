// Package app makes a lease-service instance out of its parts: it owns the expiry clocks of its share of the leases, answers
// keepalives from memory, and asks the consensus tier to revoke what ran out.
//
// A process calls Main. Standalone calls New with Dependencies that reach its own node by direct bindings and registers the
// instance on its own server, and runs the Parts in its own group. An instance keeps nothing on disk.
package app
