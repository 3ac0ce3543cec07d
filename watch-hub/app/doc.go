// Package app is the watch-hub as a process or as a part of one: its configuration and its parts in the order of their start.
//
// New builds a hub and listens nowhere; Register puts its service on whatever server, or direct binding, the caller has; Parts
// run it. Main does all of that for a process of its own. A process that joins several services gives connections to its
// own consensus node, and the bus, by Dependencies.
package app
