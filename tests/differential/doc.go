// Package differential sends the same requests to Holdfast and to a real etcd and compares everything that comes back:
// every field of every response and the code and text of every error.
//
// A Generator makes the requests from a seed: valid ones, invalid ones and ones at the limits. They go out over bare gRPC
// connections, one after the other, so that no client library retries or rewrites anything and both systems see the same
// history. What must differ is taken out first, or not asked: MustDiffer is the one list of it, with a reason each, and whatever it does
// not name is compared.
//
// It asks its caller for two systems that are fresh, so that revisions agree, and that nobody else writes to.
package differential
