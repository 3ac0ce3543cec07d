package sim

import (
	"math/rand/v2"
	"time"
)

// Faults says what may go wrong in one run, and how small its bounds are. All times are in moments; see doc.go for what each fault means.
type Faults struct {
	// Drop, Duplicate and Reorder are probabilities for each message. DelayMax bounds how long one is on its way.
	Drop, Duplicate, Reorder float64
	DelayMax                 uint64
	// Every is the mean time between two faults of the kinds below, whose weights say how likely each is; 0 means never.
	Every uint64
	// Partition cuts a random group of members off in both directions, OneWay in one; Heal joins all again.
	Partition, OneWay, Heal int
	// Pause stops one member's steps for a while and Skew changes how long its ticks are.
	Pause, Skew int
	// Kill ends one process, PowerCut one machine, at once or at a later crash point; Cut cuts the power in the middle of a call to the
	// file system; All are power cuts of all machines.
	// Fringe ends the process of a member that does not lead.
	Kill, PowerCut, Cut, All, Fringe int
	// DownMax bounds how long a machine is down.
	DownMax uint64
	// SyncFail and WriteFail make calls of the log's disk fail, Full fills it up, StoreFail makes a commit of the database fail, Flip
	// turns a bit over in a log at rest.
	SyncFail, WriteFail, Full, StoreFail, Flip int
	// Transfer moves leadership, Members changes the membership, Stop ends a process in good order.
	Transfer, Members, Stop int

	// Voters is the size of the first cluster.
	Voters int
	// Bounds of each node; see raftnode.Config and wal.Options. Queue is the room in the work queues.
	ElectionTicks                              int
	SnapshotCount, CatchUpEntries, LogBytesMax uint64
	CommitHold                                 time.Duration
	SegmentBytes                               int64
	Queue                                      int
	// Clients is how many work at the same time; Anywhere is the share of their calls that go to any member, not to who leads.
	Clients  int
	Anywhere float64
}

// some is the swarm: of all kinds of faults each run has a random part, since too many at once hide each other.
func some(r *rand.Rand, weight int) int {
	if r.IntN(2) == 0 {
		return 0
	}
	return 1 + r.IntN(weight)
}

func oneOf[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// randomFaults draws the faults and bounds of one run.
func randomFaults(r *rand.Rand) Faults {
	return Faults{
		Drop: oneOf(r, 0, 0, 0.01, 0.1), Duplicate: oneOf(r, 0, 0.02, 0.2), Reorder: oneOf(r, 0, 0.05, 0.5),
		DelayMax: oneOf[uint64](r, 2, 10, tickMoments/2, 3*tickMoments),
		DownMax:  oneOf[uint64](r, 2, tickMoments, 5*tickMoments), Anywhere: oneOf(r, 0.2, 0.2, 0.6),
		Every:     oneOf[uint64](r, 3, 8, 25) * tickMoments,
		Partition: some(r, 4), OneWay: some(r, 3), Heal: 3,
		Pause: some(r, 4), Skew: some(r, 2),
		Kill: some(r, 6), PowerCut: some(r, 6), Cut: some(r, 6), All: some(r, 2), Fringe: some(r, 2),
		SyncFail: some(r, 3), WriteFail: some(r, 2), Full: some(r, 1), StoreFail: some(r, 2), Flip: some(r, 2),
		Transfer: some(r, 4), Members: some(r, 6), Stop: some(r, 2),
		Voters:        oneOf(r, 1, 2, 3, 3, 3, 3, 4, 5),
		ElectionTicks: oneOf(r, 3, 5, 10),
		SnapshotCount: oneOf[uint64](r, 1, 5, 20, 1000), CatchUpEntries: oneOf[uint64](r, 1, 3, 10),
		LogBytesMax:  oneOf[uint64](r, 2<<10, 16<<10, 1<<20),
		SegmentBytes: oneOf[int64](r, 2<<10, 8<<10, 32<<10),
		Queue:        oneOf(r, 4, 6, 64),
		Clients:      1 + r.IntN(5),
		CommitHold:   oneOf[time.Duration](r, 0, time.Millisecond), // until the next tick
	}
}
