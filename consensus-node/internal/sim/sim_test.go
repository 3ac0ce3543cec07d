package sim

import (
	"bufio"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag     = flag.Uint64("seed", 0, "the first seed; 0 takes HOLDFAST_SEED, else 1 for the seeds that every change has to pass, and a random one with -seeds or -duration")
	seedsFlag    = flag.Int("seeds", 0, "how many seeds to run; without this and -duration it is 2000, or as many as fit into 100 s")
	shardsFlag   = flag.Int("shards", runtime.GOMAXPROCS(0), "processes to share the seeds among")
	realFlag     = flag.Int("real", 4, "how many seeds to run on the real store")
	durationFlag = flag.Duration("duration", 0, "how long to run seeds")
	eventsFlag   = flag.String("events", "", "a file for the whole trace of the last seed")
	ticksFlag    = flag.Int("ticks", 60, "ticks of each run until it is healed")
)

// healTicksMax bounds how long a healed cluster may take to be as it should, in election timeouts.
const healTimeoutsMax = 40

// report is what became of one run.
type report struct {
	digest, events, steps uint64
	kinds                 kindCounts
	failure               string
	tail                  string
}

// simulate is one run of a seed.
func simulate(seed uint64, mutation mutation, tune func(*Faults), openDB func(*machine) database) (r report) {
	defer randomness(seed, mutation == reusedReadIDs)()
	w := &world{}
	if *eventsFlag != "" {
		f, err := os.Create(*eventsFlag)
		if err != nil {
			panic(err)
		}
		defer f.Close()
		out := bufio.NewWriter(f)
		defer out.Flush()
		w.trace.all = out
	}
	defer func() {
		if p := recover(); p != nil {
			v, ok := p.(violation)
			if !ok {
				fmt.Println("seed", seed, "\n", w.trace.String())
				panic(p)
			}
			r.failure = v.text
		}
		r.digest, r.events, r.steps, r.kinds = w.trace.digest, w.trace.count, w.steps, w.trace.kinds
		if r.failure != "" {
			r.tail = w.trace.String()
		}
	}()
	faults := randomFaults(rand.New(rand.NewPCG(seed, 1)))
	tune(&faults)
	w.init(seed, faults, mutation, openDB)
	w.run(uint64(*ticksFlag)*tickMoments, func() bool { return false })
	w.heal()
	deadline := w.now + healTimeoutsMax*uint64(w.faults.ElectionTicks)*tickMoments
	w.run(deadline, w.live)
	if !w.live() {
		w.fail("the healed cluster does not recover within %d election timeouts", healTimeoutsMax)
	}
	w.check.agree()
	for _, m := range w.members {
		m.crash(false) // lets the files of a real store go
	}
	return r
}

// asDrawn leaves the faults of a seed as they are.
func asDrawn(*Faults) {}

func inMemory(m *machine) database {
	db := newMemory(m.refresh)
	db.torn = m.w.mutation == tornIndex
	return db
}

// firstSeed is where a test begins to count seeds.
func firstSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed, _ = strconv.ParseUint(os.Getenv("HOLDFAST_SEED"), 10, 64)
	}
	if seed == 0 && *seedsFlag == 0 && *durationFlag == 0 {
		return 1 // a change is judged by the same runs as the one before it
	}
	if seed == 0 {
		seed = rand.Uint64() >> 16
	}
	return seed
}

// TestSimulation runs many clusters, each from one seed, in as many processes as there are processors: the randomness that a run
// replaces is the process's.
func TestSimulation(t *testing.T) {
	if *shardsFlag <= 1 {
		runSeeds(t)
		return
	}
	seed := firstSeed(t)
	seeds, duration := bounds()
	var shards sync.WaitGroup
	for i := range min(*shardsFlag, seeds) {
		first, count := seed+uint64(i)<<32, (seeds+i)/min(*shardsFlag, seeds)
		shards.Go(func() {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestSimulation$", "-test.v", "-shards", "1",
				"-seed", fmt.Sprint(first), "-seeds", fmt.Sprint(count), "-ticks", fmt.Sprint(*ticksFlag),
				"-duration", duration.String(), "-events", *eventsFlag)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
				return
			}
			t.Logf("%s", out)
		})
	}
	shards.Wait()
}

// bounds says how many seeds to run, and for how long, whichever comes first.
func bounds() (seeds int, duration time.Duration) {
	const seedsDefault, durationDefault = 2000, 100 * time.Second
	seeds, duration = *seedsFlag, *durationFlag
	switch {
	case seeds == 0 && duration == 0:
		return seedsDefault, durationDefault
	case seeds == 0:
		return math.MaxInt32, duration
	case duration == 0:
		return seeds, math.MaxInt64
	}
	return seeds, duration
}

// rareSeeds are enough for everything to happen at least once.
const rareSeeds = 300

func runSeeds(t *testing.T) {
	t.Helper()
	const lessGarbageCollection = 400
	defer debug.SetGCPercent(debug.SetGCPercent(lessGarbageCollection))
	seed, start := firstSeed(t), time.Now()
	var kinds kindCounts
	var steps uint64
	n := 0
	for seeds, duration := bounds(); n < seeds && time.Since(start) < duration; n++ {
		r := simulate(seed+uint64(n), none, asDrawn, inMemory)
		if r.failure != "" {
			t.Fatalf("%s\n%s%s\nrun it again with -seed %d -seeds 1", r.failure, r.tail, r.failure, seed+uint64(n))
		}
		kinds.add(&r.kinds)
		steps += r.steps
	}
	t.Logf("%d seeds from %d in %v, %d steps: %v", n, seed, time.Since(start).Round(time.Millisecond), steps, &kinds)
	if kind := kinds.never(); n >= rareSeeds && kind != "" {
		t.Errorf("in %d seeds there was no %s: the simulation is blind for what comes of it", n, kind)
	}
}

// TestSameSeedSameRun: a seed says all.
func TestSameSeedSameRun(t *testing.T) {
	seed := firstSeed(t)
	seen := map[uint64]bool{}
	for s := seed; s < seed+10; s++ {
		first, again := simulate(s, none, asDrawn, inMemory), simulate(s, none, asDrawn, inMemory)
		if first.digest != again.digest || first.events != again.events {
			t.Fatalf("seed %d gives two runs: %d events with digest %x, %d with %x", s, first.events, first.digest, again.events, again.digest)
		}
		seen[first.digest] = true
	}
	if len(seen) != 10 {
		t.Fatalf("10 seeds give %d runs", len(seen))
	}
}
