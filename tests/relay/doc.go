// Package relay stands between the processes of a cluster and loses what they say to each other. Each process listens on
// its real address and tells the others that of a relay; the relay finds out which process is at the other end of a
// connection, so that a single link can be cut, in one direction alone if need be.
//
// A link is the way from one process to another. What it carries is whatever the first sends to the second, on
// connections of either's making. A link that is Held passes nothing on and closes nothing, as a network does that drops
// all packets: what was sent waits, and arrives when the link is mended, if both ends still want it. A link that is Refused
// breaks: connections that use it end, and new ones end at once.
//
// It knows addresses and names of processes, and nothing of what they say. It asks for processes that were started by this
// one with the flag --name; what comes from elsewhere is from "".
package relay
