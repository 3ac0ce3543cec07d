// Package sim holds the deterministic simulation of the consensus tier: several nodes on one thread, from one seed, on a fake network, fake
// disks and a fake clock. All of it is test code.
//
//	go test ./consensus-node/internal/sim -seed 7 -seeds 1            one run again (or HOLDFAST_SEED=7)
//	go test ./consensus-node/internal/sim -seeds 5000                 many
//	go test ./consensus-node/internal/sim -duration 10m               as many as fit; without flags, 2000 or as many as fit into 100 s
//	go test ./consensus-node/internal/sim -seed 7 -seeds 1 -events F  the whole trace of a run, in file F
//
// The same seed gives exactly the same run: a digest of all events says so. A failure prints its seed and the end of its trace.
//
// # What runs
//
// The real code: raft.RawNode under raftnode's steps ([raftnode.Stepper]), the real log (package wal) on faultfs, the real node, apply, mvcc,
// lease and member, the real packer with its settling of lost proposals, the real rounds of read indexes, the real order of a start. What takes its
// place at the edges is the network, the disk under the log, the clock, the operating system's randomness (crypto/rand.Reader, from which raft
// draws its election timeouts and raftnode the ids of reads: it is replaced by a seeded one, so PreVote, CheckQuorum and the
// timeouts are raft's own), and for most seeds the database: one in memory with the real store's rules. A share of the seeds runs on
// the real store with real files, whose commits and crashes happen where the simulation says.
//
// # What does not
//
// The goroutines of raftnode.Run and what they alone do: waiting, and the pause before an image is sent again (their tests are raftnode's); the encoding of messages, streams and images (package transport's), the edge, the
// outbox's readers, the operating system under the database file, wall-clock time. A step is atomic but for what its disk does: a crash
// comes between steps, at a crash point within one (before and after each call of the log, each Apply, install and commit, and after an image was
// received), or in the middle of any changing call to the log's file system. A database commit is atomic, as bbolt's is; whether one
// that was under way has landed is chance. Readers of the in-memory database live for one step.
//
// # Time
//
// A moment is one step of anything, or the wait for the next thing that is due. A tick of a member's clock is 60 moments unless a
// fault skews it. Who takes the next step, and which, is chance; so any node may be slow against any other.
//
// # Faults
//
// Each run draws a random part of all faults with random weights ([Faults]), since too many at once hide each other. They come one after the
// other, and each lasts until it ends by itself or by chance:
//
//   - drop, duplicate, delay, reorder: of one message; without reorder each link keeps its order. The sender may be told that a
//     message was lost.
//   - partition, one-way partition, heal: links between a random group and the rest.
//   - pause: a process takes no step while its messages queue. skew: its ticks are shorter or longer.
//   - kill (of anyone, or of one that does not lead): the process ends and what it wrote stays, synced or not. power cut: each write since the last sync is kept, lost or torn. Both come
//     at once or at one of the next crash points. cut: the power fails in the middle of a call of the log to its disk. all: every machine at once.
//   - failed sync, failed write (whole, short, or not at all), full disk: the process must end by itself; the disk is then mended sooner or later.
//   - failed commit of the database: the process ends and what was not committed is gone.
//   - flip: one bit of a confirmed log at rest. Opening it must report damage or give what was there before; then the bit is turned back.
//   - transfer of leadership, orderly stop, and membership changes: add a voter or a learner on a new machine, promote, remove.
//     A leader is not asked to remove itself: if its log runs ahead of the one voter that is left and has not heard that the removal is committed,
//     neither can be elected again. That is raft's own limit (hand leadership over first); seed 770483 showed it.
//   - bounds so small that the log is cut, snapshots are sent, segments rotate and work queues fill all the time.
//
// At the end all faults cease and the cluster must recover.
//
// # What is checked
//
// The checker keeps each entry as the first member to apply it saw it, and a state machine of its own (package apply with a database in memory), and
// holds everyone against them:
//
//   - an acknowledged write is in the log, once, with the outcome, response and revision that its client was told; it stands behind
//     everything that was acknowledged, or read, anywhere before it began (so, with reads, the history is linearizable: every call has its place
//     in one order that agrees with real time);
//   - a write of which was said that it is not proposed never appears, also if it is sent again and then appears once;
//   - a linearizable read sees at least what was acknowledged or read before it began, and any read sees exactly what
//     its revision holds;
//   - an outcome is handed out only when the node's readers see the write;
//   - no id of a read is used by two runs of a process;
//   - all members apply the same entries, store byte for byte the same changes for each, and have equal HashKV at equal revision and
//     compact revision; in the end they hold the same rows;
//   - nothing is applied twice or left out, before or after a crash or a snapshot;
//   - one leader a term; a vote or acknowledgement leaves a member only once it is durable there; term, vote and commit index that were durable are
//     there after any crash; committed entries are never replaced in a log;
//   - a process ends, or refuses to start, only for a fault that was injected;
//   - once healed, all members catch up and every client gets a write through within 40 election timeouts.
//
// That entries lead to the right answers is not checked here (mvcc, lease, member and apply have models of their own), only that they lead to the
// same ones everywhere.
//
// # Whether it would see a mistake
//
// TestMutations breaks one rule after the other and must see each within a number of seeds.
package sim
