package transport

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// lane is the queue of one stream to one member: bounded, closed while the member is not connected.
type lane struct {
	countMax, bytesMax int
	wake               chan struct{} // one value says that something may have changed

	mu    sync.Mutex
	open  bool
	msgs  []*raftpb.Message
	bytes int
}

func newLane(countMax, bytesMax int) *lane {
	return &lane{countMax: countMax, bytesMax: bytesMax, wake: make(chan struct{}, 1)}
}

// messageBytes estimates what a message holds in memory and on the wire.
func messageBytes(m *raftpb.Message) int {
	n := messageOverhead + len(m.GetContext())
	for _, e := range m.GetEntries() {
		n += messageOverhead + len(e.GetData())
	}
	return n
}

// push queues a message, or returns false. A message larger than the bound is taken by an empty lane.
func (l *lane) push(m *raftpb.Message) bool {
	size := messageBytes(m)
	l.mu.Lock()
	full := len(l.msgs) >= l.countMax || (l.bytes > 0 && l.bytes+size > l.bytesMax)
	if !l.open || full {
		l.mu.Unlock()
		return false
	}
	l.msgs = append(l.msgs, m)
	l.bytes += size
	l.mu.Unlock()
	l.signal()
	return true
}

// take moves what makes one batch into batch.
func (l *lane) take(batch []*raftpb.Message) []*raftpb.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken, size := 0, 0
	for taken < len(l.msgs) {
		s := messageBytes(l.msgs[taken])
		if taken > 0 && size+s > batchBytesMax {
			break
		}
		size += s
		taken++
	}
	batch = append(batch, l.msgs[:taken]...)
	rest := copy(l.msgs, l.msgs[taken:])
	clear(l.msgs[rest:])
	l.msgs, l.bytes = l.msgs[:rest], l.bytes-size
	return batch
}

// reset empties the lane and opens or closes it.
func (l *lane) reset(open bool) {
	l.mu.Lock()
	l.open, l.msgs, l.bytes = open, nil, 0
	l.mu.Unlock()
	l.signal()
}

func (l *lane) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}
