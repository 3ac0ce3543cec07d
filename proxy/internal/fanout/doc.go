// Package fanout serves etcd's Watch streams from watch-hubs: it joins one watch.Core per client stream with the hubs.
//
// Hubs holds one stream to each watch-hub in use, spreads registrations over the hubs by key, and registers them anew from
// the covered position on when a hub leaves, breaks or leaves a hole. A delivery is encoded once and shared by all the
// streams it belongs to. Server is the client side, behind gRPC. Fencer lets creations of many streams share one
// linearizable read.
//
// It promises that client streams stay open whatever becomes of hubs, that a slow client holds up nobody, and that
// what waits for one client is bounded by its watch.Limits.
//
// Locks are taken in this order: a client stream's, Hubs', a link's. The receiving goroutine of a link holds none when it
// hands something to a stream.
package fanout
