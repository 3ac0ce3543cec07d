// Package ownership knows which leases belong to an instance, from when on nobody else can have acknowledged a keepalive of
// them, and whether the instance itself may acknowledge now.
//
// It is a pure core: time comes in as an argument, a reading of the instance's own clock (CLOCK_BOOTTIME), and no two
// instances' readings are ever compared.
//
// # What it promises
//
//   - Settled never lies before the last moment at which another instance could still acknowledge a keepalive of the
//     lease, whatever happened to views and instances before. See DESIGN.md of the service for why.
//   - A Right holds only under the epoch that the last confirmed heartbeat carried, and only until the removal time less
//     a margin has passed since that heartbeat was sent.
//
// # What it asks of its caller
//
// Views are adopted in the order of the lease sequence, with a reading of the clock taken after the view arrived. The time
// given with a heartbeat was read before it was sent. One goroutine at a time calls the methods.
package ownership
