package transport

const (
	// windowBatches and windowBytesMax bound what may be on its way on a stream, unmarked by the receiver. One batch may pass the bound.
	windowBatches  = 64
	windowBytesMax = 8 << 20
	// The receiver marks what it took after so many batches or bytes: seldom enough that a mark costs next to nothing beside what it
	// marks, often enough that the window never runs out while the receiver keeps up.
	markBatches  = 16
	markBytesMax = 1 << 20
)

// window is what a sender has on its way: batches that the receiver has not marked as taken.
type window struct {
	sizes  []int
	bytes  int
	marked uint64
}

// sent counts a batch.
func (w *window) sent(bytes int) {
	w.sizes = append(w.sizes, bytes)
	w.bytes += bytes
}

// mark takes the receiver's word that it took so many batches since the stream began. One that goes back, or beyond what was sent, is
// ignored.
func (w *window) mark(taken uint64) {
	if taken <= w.marked || taken-w.marked > uint64(len(w.sizes)) {
		return
	}
	n := taken - w.marked
	for _, size := range w.sizes[:n] {
		w.bytes -= size
	}
	w.sizes, w.marked = w.sizes[n:], taken
}

// room says whether another batch may leave.
func (w *window) room() bool { return len(w.sizes) < windowBatches && w.bytes < windowBytesMax }

// due says whether a receiver that took everything would have marked some of it.
func (w *window) due() bool { return len(w.sizes) >= markBatches || w.bytes >= markBytesMax }

// batchBytes is the size of a batch as both sides count it.
func batchBytes(messages [][]byte) int {
	n := 0
	for _, m := range messages {
		n += len(m)
	}
	return n
}
