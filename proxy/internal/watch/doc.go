// Package watch is the pure state machine of one client's Watch stream. Core takes in what the client asks, what a fence says and what hubs
// deliver, and gives out responses for the client (Next) and effects for the hubs (Take). It promises, for each watch:
// events in order, each once, none left out, whole revisions (or fragments if asked for), no header below the revision
// that its creation reported, and nothing at or below a revision that a progress notice named. Its memory is bounded by
// Limits: a watch whose client does not read is taken off its hub and put back when the client has read on.
//
// It asks its caller to carry out the effects in order before anything else reaches the Core, to report every interval of
// a hub's stream in the order in which it came, and to take responses only when the client can be sent one.
//
// # Fence
//
// A new watch starts at a fence, a revision R that a linearizable read gave: the created response carries R, start 0
// means R+1. Several creations share a fence; requests behind a creation wait with it, so responses keep the order of
// requests.
//
// # Progress
//
// The notice under id -1 moves every watch of a clientv3 stream to R+1. It is given only when every watch is in the live
// path of its hub and has been sent everything up to R, the least position of all, when none starts above R+1 and none was
// told of more than R already. Otherwise each watch in the live path gets its own notice; if there is none, the request
// is remembered. Notices wait in the queue of responses like events do.
package watch
