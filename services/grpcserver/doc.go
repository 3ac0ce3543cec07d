// Package grpcserver serves gRPC and plain HTTP/1 on one port, as etcd's clients expect.
//
// The first bytes of each connection decide: the HTTP/2 preface goes to a real gRPC server, anything else to an HTTP/1
// server. gRPC never passes through net/http, whose HTTP/2 server starved watch streams in etcd (issue 15402). Deciding
// is bounded in time and memory, so that clients which connect and say nothing cost little and hold up nobody.
//
// It promises that nothing listens before Listen, that a port in use is one clear line, and that Stop ends within its
// context: gracefully for a moment, because watch streams would never end by themselves, then by closing.
//
// It asks that services are registered before Serve.
package grpcserver
