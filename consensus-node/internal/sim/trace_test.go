package sim

import (
	"fmt"
	"io"
	"strings"
)

// event is one thing that happened. a, b and c are what its kind says.
type event struct {
	at, node uint64
	kind     kind
	a, b, c  uint64
}

type kind uint8

// The kinds of events, each with the meaning of its numbers.
const (
	evTick    kind = iota + 1
	evDeliver      // from, message type, index
	evSend         // to, message type, index
	evLose         // to, message type, index
	evAppend       // last index, commit, synced
	evMark         // index, term
	evAnswer
	evApply   // first index, last index
	evBatch   // index, hash of its changes
	evCommit  // index
	evInstall // index
	evAsk
	evPropose // index, term
	evImage   // to, index
	evReceive // from, index
	evCompact // compact revision
	evStart   // mark, last index, applied
	evRefuse  // refused to start
	evCrash   // 1 for a power cut
	evPoint   // crash point
	evFault   // kind, argument
	evInvoke  // operation, type
	evReturn  // operation, outcome, index
	evRead    // operation, index
	evLead    // term
	evMember  // kind, member
	evPrepare // a segment of the log
	evFlip    // offset
	evHeal
)

var kindNames = [...]string{
	"", "tick", "deliver", "send", "lose", "append", "mark", "answer", "apply", "batch", "commit", "install", "ask", "propose", "image", "receive",
	"compact", "start", "refuse", "crash", "point", "fault", "invoke", "return", "read", "lead", "member", "prepare", "flip", "heal",
}

// kindCounts is how often events of each kind happened.
type kindCounts [evHeal + 1]uint64

func (c *kindCounts) add(other *kindCounts) {
	for k, n := range other {
		c[k] += n
	}
}

// never names a kind that did not happen, if there is one.
func (c *kindCounts) never() string {
	for k := evTick; k <= evHeal; k++ {
		if c[k] == 0 {
			return kindNames[k]
		}
	}
	return ""
}

func (c *kindCounts) String() string {
	var parts []string
	for k := evTick; k <= evHeal; k++ {
		parts = append(parts, fmt.Sprintf("%s %d", kindNames[k], c[k]))
	}
	return strings.Join(parts, ", ")
}

func (e event) String() string {
	return fmt.Sprintf("%7d n%d %-8s %d %d %d", e.at, e.node, kindNames[e.kind], e.a, e.b, e.c)
}

// tailMax is how much of a run is printed if it fails.
const tailMax = 120

// trace is the digest of all events and the last of them.
type trace struct {
	digest uint64
	count  uint64
	kinds  kindCounts
	tail   [tailMax]event
	all    io.Writer // nil unless the whole trace was asked for
}

const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

func mix(h, v uint64) uint64 {
	// FNV-1a over words instead of bytes: quick, and any change of any word changes the digest.
	h = (h ^ v) * fnvPrime
	return h ^ h>>29
}

func (t *trace) add(e event) {
	h := t.digest ^ fnvOffset
	for _, v := range [...]uint64{e.at, e.node, uint64(e.kind), e.a, e.b, e.c} {
		h = mix(h, v)
	}
	t.digest = h
	t.tail[t.count%tailMax] = e
	t.count++
	t.kinds[e.kind]++
	if t.all != nil {
		fmt.Fprintln(t.all, e)
	}
}

func (t *trace) String() string {
	var b strings.Builder
	first := uint64(0)
	if t.count > tailMax {
		first = t.count - tailMax
	}
	for i := first; i < t.count; i++ {
		fmt.Fprintln(&b, t.tail[i%tailMax])
	}
	return b.String()
}

// sum hashes bytes.
func sum(h uint64, data []byte) uint64 {
	h ^= fnvOffset
	for _, c := range data {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return mix(h, uint64(len(data)))
}
