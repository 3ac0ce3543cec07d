// Command bench compares Holdfast with a real etcd: the same load, on the same machine and file system, in one run.
//
// For each row it starts the systems one after the other, each with fresh data, pinned to one processor while the load runs
// on another, and goes round as often as -runs says (etcd, standalone, split, etcd, standalone, ...), so that a machine that
// grows slower grows slower for all. Only one system runs at a time. Five runs are the default: the table gives medians.
//
//	go run ./bench                              all rows
//	go run ./bench -row='put-.*' -runs=7        the rows whose whole name matches
//	go run ./bench -list                        the rows there are
//
// The systems are etcd, standalone (bin/holdfast) and split (NATS, consensus nodes, watch-hubs, lease-services, two
// proxies). Rows have three nodes on all sides; those that end in -one have one. Both sides run with their defaults, or with
// the same flags: every acknowledged write has been synced. Clients are spread evenly over the endpoints. A row with a single
// client has nothing to spread: its client asks the leader, which is looked for first. Behind the split system's proxies it
// makes no difference.
//
// Some rows do not measure a fixed time. put-catchup kills a follower that no client uses, lets it miss more than the logs
// hold, and measures from its start until it has applied what the leader had applied a moment before; a follower that comes
// without a snapshot makes the run an error. failover kills the leader five times a run, and starts it again in between, while
// one client writes: it stays with an endpoint that answers, each call gets 100 ms, and one that fails is followed at once by
// a call of the next endpoint. What is measured begins with the kill and ends a second after the first write through the next
// leader, or with the end of a gap that began within that second. Before that, and before a
// follower is killed, all nodes agree on a leader. -seconds does not matter there, and -warmup is the quiet time before a
// kill. memory-million kills a node that holds a million keys and measures from its start to its first answer. The rows put-compact-million,
// put-defragment-million and put-snapshot-million measure the load by itself for -seconds, and then from the begin to the end of the
// work. Rows whose data lies on a tmpfs are left out, and say so, where -tmpfs names none.
//
// With -profile DIR each server's processor profile and what it allocated over the measured time lie in DIR, for go tool pprof;
// such runs are for finding out why, their figures are no comparison.
//
// Each measurement is a JSON line in the results file: row, system, run, ops_per_s, p50_ms, p99_ms, cpu_us_per_op (of all
// processes of the system, user and kernel time together), rss_mb (the sum of their peaks), for failover gap_ms (the longest
// time between two acknowledged writes around any kill of the run) and gap_median_ms (the median of the kills' longest), for rows with an
// operator's work quiet_p99_ms and x_quiet (how many times that the p99 became), for memory-million loaded_mb (what all processes hold
// with the data), start_ms and started_mb (the peak of the node that was started), and
// commit_p99_ms (the p99 of those operations during which a node's bbolt file was written, seen by its time of change), endpoint_p50_ms and
// endpoint_p99_ms (by endpoint, where clients stay with one), and
// what helps to judge it: server_cpu and load_cpu are the share of one processor that the system and the load took. Where
// load_cpu is near 1 the load was the limit, and the line and the table say so: then ops_per_s and the latencies say little
// about the system, while cpu_us_per_op still counts. others_cpu is the share of the servers' processor that other programs
// took: a quiet machine gives quiet figures. A table with the medians, their spread and the ratios to etcd closes the run.
package main
