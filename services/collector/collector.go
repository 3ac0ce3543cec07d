// Package collector paces the garbage collector of a process.
//
// Go collects when the heap has grown by as much as survived the last collection, so a process with little in use collects as often as it
// allocates that little: a busy node spent a tenth of its time so. Pace gives garbage more room while collections cost much of the time that
// the process works, and takes it back when they do not. What came together that way while a process was busy goes back to the system when it
// is quiet.
package collector

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The least that the heap may grow between two collections: in percent of what is in use, and in bytes.
const (
	percentMin = 50
	roomMin    = 8 << 20
)

// Pace gives garbage a room of 8 MiB and half of what is in use at least, and at most of roomMax bytes or as much as is in use, whichever is
// more, for as long as the process runs. Call it once. Where GOGC is set it does nothing, and a memory limit (GOMEMLIMIT) counts as ever.
func Pace(roomMax uint64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	p := &pacer{budget: budget{roomMax: max(roomMax, roomMin), room: roomMin}, percent: percentDefault}
	p.last = p.look()
	p.next()
	go settle(&rest{})
}

// percentDefault is Go's own.
const percentDefault = 100

// pacer looks at each collection what is in use and what collections have cost.
type pacer struct {
	budget
	percent int
	last    look // that was judged
}

// look is what a process has come to at one moment.
type look struct {
	at          time.Time
	live        uint64  // survived the last collection, in bytes
	gcS, otherS float64 // what collections and all else have taken of the processors, in seconds
}

// mark is an object that nothing refers to: its cleanup tells of a collection.
type mark struct{ _ *mark }

func (p *pacer) next() {
	runtime.AddCleanup(&mark{}, func(p *pacer) {
		now := p.look()
		if p.after(now.at.Sub(p.last.at), now.live, now.gcS-p.last.gcS, now.otherS-p.last.otherS) {
			p.last = now
		}
		p.adjust(now.live)
		p.next()
	}, p)
}

func (p *pacer) look() look {
	const live, gc, other = "/gc/heap/live:bytes", "/cpu/classes/gc/total:cpu-seconds", "/cpu/classes/user:cpu-seconds"
	samples := []metrics.Sample{{Name: live}, {Name: gc}, {Name: other}}
	metrics.Read(samples)
	return look{at: time.Now(), live: samples[0].Value.Uint64(), gcS: samples[1].Value.Float64(), otherS: samples[2].Value.Float64()}
}

// adjust sets the percentage anew if it is off by much: each setting stops the process for a moment.
func (p *pacer) adjust(live uint64) {
	wanted := percent(p.room, live)
	if off := wanted - p.percent; off > p.percent/8 || -off > p.percent/8 {
		p.percent = wanted
		debug.SetGCPercent(wanted)
	}
}

// Collections may take one part in shareOfTime of the time that the process works. Where they take more the room becomes larger by a
// quarter; where they take less than half of it, or little of a long time, smaller by a fifth. That is judged each time that the process has
// worked for judgedS seconds, so a burst of a second does not leave a heap that is made for hours of the like.
const (
	shareOfTime = 20
	judgedS     = 0.1
	long        = 5 * time.Second
)

// budget is the room that garbage is given.
type budget struct{ room, roomMax uint64 }

// after judges what collections and all else have taken of a time, in seconds; live is what is in use, in bytes. It tells whether that was
// enough to judge by.
func (b *budget) after(passed time.Duration, live uint64, gcS, otherS float64) bool {
	allowed := (gcS + otherS) / shareOfTime
	switch {
	case passed < long && gcS+otherS < judgedS:
		return false
	case passed >= long && gcS < passed.Seconds()/(2*shareOfTime), gcS < allowed/2:
		b.room = b.room / 5 * 4
	case gcS > allowed:
		b.room = b.room / 4 * 5
	}
	b.room = max(min(b.room, max(b.roomMax, live)), roomMin, live*percentMin/100)
	return true
}

const (
	// lookEvery is how often a process is looked at, quietBytes what it allocates at most in that time while it is quiet, and quietLooks
	// for how many looks it must be.
	lookEvery  = time.Second
	quietBytes = 2 << 20
	quietLooks = 2
	// restBytes is what must have been allocated for it to be worth giving memory back.
	restBytes = 16 << 20
)

// rest tells when a process has come to rest: by what it has allocated in all, looked at regularly.
type rest struct {
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
	if r.quiet < quietLooks || allocated-r.given < restBytes {
		return false
	}
	r.given = allocated
	return true
}

func settle(r *rest) {
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	for range time.Tick(lookEvery) {
		metrics.Read(allocated)
		if r.come(allocated[0].Value.Uint64()) {
			debug.FreeOSMemory()
		}
	}
}

// heapMinPerPercent is how many bytes of heap Go has for each percent before it collects at all.
const heapMinPerPercent = 4 << 20 / 100

// percent is what lets a heap grow by room: by its part of what is in use, or to Go's least heap, whichever comes later.
func percent(room, live uint64) int {
	return int(min(100*room/max(live, 1), (live+room)/heapMinPerPercent))
}
