// Package owner is all that one instance decides: whether a keepalive is acknowledged, when a lease has run out, and what its
// deadline is after it changed hands. It joins package ownership (whose is it) and package expiry (how long has it).
//
// It is a pure core: time comes in as an argument, a reading of the instance's own clock, and effects go out as data.
//
// # What it promises
//
// Whenever it decides to expire a lease under an epoch, the TTL has passed since every keepalive that any instance
// acknowledged under that epoch or an earlier one had been sent by its client; and from the decision until its outcome is
// known no keepalive of the lease is acknowledged here. The consensus tier rejects the decision if the epoch has moved on.
// DESIGN.md of the service has the proof.
//
// # What it asks of its caller
//
//   - One goroutine at a time calls the methods. The time given was read after whatever the call is about arrived: a
//     stale reading would count a pause as time that the lease still has.
//   - Changes come in the order of the lease sequence; a table comes from one sequence.
//   - A keepalive answered Renewed may go out late: it counts from its arrival. But its caller asks Holds again with a
//     fresh reading before it sends.
//   - Tick is called at least every TickEvery. What it decides is sent to the consensus tier again and again until
//     Outcome is called or the epoch has moved on.
package owner
