// Package contract holds that the contracts between services are the same over both of their bindings: gRPC on a
// connection, and direct calls within one process. One suite per contract (Consensus, Hub, Keeper) runs over each, against the
// real services, joined as one standalone process joins them.
//
// What each service does beyond its contract is its own tests' business.
package contract
