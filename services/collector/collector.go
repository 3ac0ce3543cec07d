// Package collector paces the garbage collector of a process.
//
// Go collects when the heap has grown by as much as survived the last collection, so a process with little in use collects as often as it
// allocates that little: a busy node spent a tenth of its time so. Pace lets it allocate a fixed amount at least. What came together that
// way while a process was busy goes back to the system when it is quiet.
package collector

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The least and the most that the heap may grow between two collections, in percent of what is in use: the least is Go's own.
const (
	percentMin = 100
	percentMax = 1000
)

// Pace lets the process allocate at least growth bytes between two collections, for as long as it runs. Call it once. Where GOGC is set it
// does nothing, and a memory limit (GOMEMLIMIT) counts as ever.
func Pace(growth uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	(&pacer{growth: growth, percent: percentMin}).next()
	go settle(&rest{worth: growth / restShare})
}

// pacer looks at each collection what is in use.
type pacer struct {
	growth  uint64
	percent int
}

// mark is an object that nothing refers to: its cleanup tells of a collection.
type mark struct{ _ *mark }

func (p *pacer) next() {
	runtime.AddCleanup(&mark{}, func(p *pacer) {
		p.adjust(inUse())
		p.next()
	}, p)
}

// adjust sets the percentage anew if it is off by much: each setting stops the process for a moment.
func (p *pacer) adjust(live uint64) {
	wanted := percent(p.growth, live)
	if off := wanted - p.percent; off > p.percent/8 || -off > p.percent/8 {
		p.percent = wanted
		debug.SetGCPercent(wanted)
	}
}

const (
	// lookEvery is how often a process is looked at, quietBytes what it allocates at most in that time while it is quiet, and quietLooks
	// for how many looks it must be.
	lookEvery  = time.Second
	quietBytes = 2 << 20
	quietLooks = 2
	// restShare is the part of growth that is worth to be given back.
	restShare = 8
)

// rest tells when a process has come to rest: by what it has allocated in all, looked at regularly.
type rest struct {
	worth       uint64
	last, given uint64 // what had been allocated at the last look, and when memory was given back last
	quiet       int
}

// come tells whether memory is to be given back now.
func (r *rest) come(allocated uint64) bool {
	if allocated-r.last > quietBytes {
		r.quiet = 0
	} else {
		r.quiet++
	}
	r.last = allocated
	if r.quiet < quietLooks || allocated-r.given < r.worth {
		return false
	}
	r.given = allocated
	return true
}

func settle(r *rest) {
	for range time.Tick(lookEvery) {
		if r.come(read("/gc/heap/allocs:bytes")) {
			debug.FreeOSMemory()
		}
	}
}

func percent(growth, live uint64) int {
	return int(min(max(100*growth/max(live, 1), percentMin), percentMax))
}

// inUse is what survived the last collection, in bytes.
func inUse() uint64 { return read("/gc/heap/live:bytes") }

func read(metric string) uint64 {
	sample := []metrics.Sample{{Name: metric}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
