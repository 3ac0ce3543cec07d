// Package engine runs the core of a watch-hub: one goroutine owns it, takes in what sources and proxies say, carries out its
// effects, and lets it catch registrations up in between.
//
// Each proxy's stream has a queue of its own, filled by that goroutine without waiting and emptied by the stream's own sender by
// credit, so a slow proxy delays no other and costs bounded memory.
//
// Engine implements the Hub service. It promises that a stream's registrations end with the stream, and that Drain asks every
// proxy to leave. It asks its caller to run Run; streams that come before wait.
package engine
