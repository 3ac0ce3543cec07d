// Command bench compares Holdfast with a real etcd: the same load, on the same machine and file system, in one run.
//
// For each row it starts the systems one after the other, each with fresh data, pinned to one processor while the load runs
// on another, and goes round as often as -runs says (etcd, standalone, split, etcd, standalone, ...), so that a machine that
// grows slower grows slower for all. Only one system runs at a time.
//
//	go run ./bench                              all rows
//	go run ./bench -row='put-.*' -runs=5        the rows whose whole name matches
//	go run ./bench -list                        the rows there are
//
// The systems are etcd, standalone (bin/holdfast) and split (NATS, consensus nodes, watch-hubs, lease-services, two
// proxies). Rows have three nodes on all sides; those that end in -one have one. Both sides run with their defaults: every
// acknowledged write has been synced.
//
// Each measurement is a JSON line in the results file: row, system, run, ops_per_s, p50_ms, p99_ms, cpu_us_per_op (of all
// processes of the system, user and kernel time together), rss_mb (the sum of their peaks), and what helps to judge it:
// server_cpu and load_cpu are the share of one processor that the system and the load took. Where load_cpu is near 1 the
// load was the limit: then ops_per_s and the latencies say little about the system, while cpu_us_per_op still counts.
// others_cpu is the share of the servers' processor that other programs took: a quiet machine gives quiet figures. A table with the medians, their spread and the ratios to etcd closes the run.
package main
