// Command holdfast is all four services in one process, in etcd's place: it takes etcd's flags and variables, and three of
// them form a cluster.
//
// It holds no logic of its own. The services are the same code as in the split system, joined by the direct bindings of
// the same contracts: what another process would reach over the peer URL, this one reaches by function calls. Each
// standalone feeds its own watch-hub from its own applied changes over a bus in memory; between nodes everything goes over
// the peer URLs, and no other port opens.
package main
