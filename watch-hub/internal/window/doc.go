// Package window knows where a follower of the feed of changes stands: its position, what it misses, and the newest changes,
// kept up to a bound in bytes. watch-hub/DESIGN.md has the whole contract between client, proxy, hub and node.
//
// A Follower takes in messages in whatever order they come, from whatever publisher, and gives out accepted intervals: each
// revision once, in order, whole. What it misses it says with Need; how and when to fetch is the caller's business,
// and what was fetched comes in by Receive like any other message.
//
// A Window holds the accepted revisions of (Base, Position] and drops the oldest past its bound. It never holds a hole.
//
// Both are pure: no clock, no goroutine, no network. Neither is safe for concurrent use. Revisions are shared with the
// messages they came in; nobody changes them.
package window
