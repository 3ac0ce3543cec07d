// Package keeper joins the pure core of an instance to the world: it follows the lease table, confirms the instance by
// heartbeats, answers proxies, has the consensus tier revoke what ran out, and announces what happens to leases.
//
// It promises what package owner promises, and of its own: whatever waits is bounded, and past the bound the answer is
// "ask again"; "no such lease" is said only after a read that began after the question arrived; the core's clock is read
// after whatever it is told of arrived.
//
// One mutex guards the core. Nothing waits while it is held. It asks its caller to run all of Parts in their order.
package keeper
