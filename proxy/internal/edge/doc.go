// Package edge is what clients see: etcd's gRPC services by their full names, and /health, /version and /metrics beside
// them on the same port.
//
// It promises that requests and responses of unary calls pass through without being decoded, except the few that take
// more than one step, and so do the messages of streamed answers, each when its client has taken the one before; that a
// method which is not served answers Unimplemented; and that neither serializable reads nor the headers of keepalives go
// back in revision on one client connection. It knows no cluster: where calls go is the business of the packages behind it.
package edge
