package propose

import (
	"time"

	journalv1 "github.com/holdfastdb/holdfast/proto/holdfast/journal/v1"
)

const (
	// PackBytesMax bounds the commands of one entry, so that one entry never holds up replication or apply for long.
	PackBytesMax = 256 << 10
	// QueueBytesMax bounds the ordinary writes that wait; past it they are refused as too many requests.
	QueueBytesMax = 16 << 20
	// UrgentBytesMax bounds the urgent writes that wait beside them, so that a queue full of puts refuses no revoke.
	UrgentBytesMax = 4 << 20
	// UrgentRunMax is how many entries in a row may hold nothing but urgent writes while an ordinary one waits: ordinary
	// writes have at least every fourth entry.
	UrgentRunMax = 3
)

// urgent tells which commands pass the others: what lets leases end, move and live on. They are small, and late ones cost more
// than a late put: an expiry that is due, a takeover, a keepalive that waits for its checkpoint to be cleared.
func urgent(c *journalv1.Command) bool {
	switch c.GetCommand().(type) {
	case *journalv1.Command_LeaseGrant, *journalv1.Command_LeaseRevoke, *journalv1.Command_LeaseExpire,
		*journalv1.Command_LeaseCheckpoint, *journalv1.Command_ViewChange:
		return true
	}
	return false
}

// queued is a write that waits for its entry.
type queued struct {
	Write
	size int
	at   time.Duration
}

// alone says that the write shares its entry with no other.
func (q *queued) alone() bool { return q.Exclusive || q.Term != 0 }

// queue holds the writes of one kind in the order of their coming.
type queue struct {
	writes []queued
	bytes  int
}

func (q *queue) push(w queued) {
	q.writes = append(q.writes, w)
	q.bytes += w.size
}

// fits counts the writes from the front that share one entry with up to limit bytes; one that is larger, or goes alone, comes first
// or waits.
func (q *queue) fits(limit int) (n, bytes int) {
	for i := range q.writes {
		w := &q.writes[i]
		if i > 0 && (w.alone() || bytes+w.size > limit) {
			break
		}
		n, bytes = i+1, bytes+w.size
		if w.alone() {
			break
		}
	}
	return n, bytes
}

// take moves the first n writes to the end of into.
func (q *queue) take(into []queued, n int) []queued {
	for i := range q.writes[:n] {
		q.bytes -= q.writes[i].size
	}
	into = append(into, q.writes[:n]...)
	clear(q.writes[:n])
	q.writes = q.writes[n:]
	return into
}

// older counts the writes at the front that came before a moment.
func (q *queue) older(than time.Duration) int {
	n := 0
	for n < len(q.writes) && q.writes[n].at < than {
		n++
	}
	return n
}

// backlog is what waits to be packed.
type backlog struct {
	urgent, ordinary queue
	run              int // entries of urgent writes alone, in a row, while an ordinary one waited
}

func (b *backlog) of(c *journalv1.Command) (q *queue, bytesMax int) {
	if urgent(c) {
		return &b.urgent, UrgentBytesMax
	}
	return &b.ordinary, QueueBytesMax
}

// next tells how many urgent and ordinary writes the next entry takes, and their bytes. Urgent ones come first and leave half of the
// entry to the others. With held, ordinary writes wait.
func (b *backlog) next(held bool) (urgents, ordinaries, bytes int) {
	if held || len(b.ordinary.writes) == 0 {
		urgents, bytes = b.urgent.fits(PackBytesMax)
		return urgents, 0, bytes
	}
	if b.run < UrgentRunMax {
		urgents, bytes = b.urgent.fits(PackBytesMax / 2)
	}
	if urgents > 0 && (b.urgent.writes[0].alone() || b.ordinary.writes[0].alone()) {
		return urgents, 0, bytes
	}
	n, more := b.ordinary.fits(PackBytesMax - bytes)
	if urgents > 0 && bytes+more > PackBytesMax { // the first write alone is larger than what is left
		return urgents, 0, bytes
	}
	return urgents, n, bytes + more
}

// takeNext moves what next said to the end of into, the urgent writes first.
func (b *backlog) takeNext(into []queued, urgents, ordinaries int) []queued {
	if ordinaries == 0 && len(b.ordinary.writes) > 0 {
		b.run++
	} else {
		b.run = 0
	}
	return b.take(into, urgents, ordinaries)
}

func (b *backlog) take(into []queued, urgents, ordinaries int) []queued {
	return b.ordinary.take(b.urgent.take(into, urgents), ordinaries)
}

func (b *backlog) len() int { return len(b.urgent.writes) + len(b.ordinary.writes) }

// takeOlder removes all writes that came before a moment.
func (b *backlog) takeOlder(than time.Duration) []queued {
	return b.take(nil, b.urgent.older(than), b.ordinary.older(than))
}

func (b *backlog) takeAll() []queued {
	return b.take(nil, len(b.urgent.writes), len(b.ordinary.writes))
}
