package wire

import (
	"sort"

	"google.golang.org/protobuf/encoding/protowire"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// Field numbers of mvccpb.Event, and of its repetition in etcdserverpb.WatchResponse.
const (
	eventType      protowire.Number = 1
	eventKv        protowire.Number = 2
	eventPrevKv    protowire.Number = 3
	responseEvents protowire.Number = 11

	eventTypeDelete = 1
)

// Events is a run of whole revisions, encoded once as the repeated events field of etcdserverpb.WatchResponse, and shared
// by every response that carries them. It is immutable.
type Events struct {
	data []byte
	// revisions and their ends in data, in increasing order.
	revisions []revisionMark
	// eventEnds are the ends of single events in data, for fragments.
	eventEnds []int
	// spans are the span contexts of sampled writes; most batches have none.
	spans []spanMark
}

type revisionMark struct {
	revision int64
	end      int
}

type spanMark struct {
	revision int64
	context  []byte
}

// EncodeEvents composes the events of the revisions, which must increase. Previous values are left out unless asked for.
func EncodeEvents(revisions []*feedv1.Revision, previous bool) *Events {
	size, count := 0, 0
	for _, revision := range revisions {
		for _, event := range revision.GetEvents() {
			body := eventSize(event, previous)
			size += protowire.SizeTag(responseEvents) + protowire.SizeBytes(body)
			count++
		}
	}
	e := &Events{
		data:      make([]byte, 0, size),
		revisions: make([]revisionMark, 0, len(revisions)),
		eventEnds: make([]int, 0, count),
	}
	for _, revision := range revisions {
		if len(revision.GetEvents()) == 0 {
			continue
		}
		for _, event := range revision.GetEvents() {
			e.data = appendEvent(e.data, event, previous)
			e.eventEnds = append(e.eventEnds, len(e.data))
		}
		e.revisions = append(e.revisions, revisionMark{revision.GetRevision(), len(e.data)})
		if span := revision.GetSpanContext(); len(span) > 0 {
			e.spans = append(e.spans, spanMark{revision.GetRevision(), span})
		}
	}
	return e
}

func eventSize(event *feedv1.Event, previous bool) int {
	n := protowire.SizeTag(eventKv) + protowire.SizeBytes(len(event.GetKv()))
	if event.GetDeleted() {
		n += protowire.SizeTag(eventType) + protowire.SizeVarint(eventTypeDelete)
	}
	if previous && len(event.GetPreviousKv()) > 0 {
		n += protowire.SizeTag(eventPrevKv) + protowire.SizeBytes(len(event.GetPreviousKv()))
	}
	return n
}

func appendEvent(b []byte, event *feedv1.Event, previous bool) []byte {
	b = protowire.AppendTag(b, responseEvents, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(eventSize(event, previous)))
	if event.GetDeleted() {
		b = protowire.AppendTag(b, eventType, protowire.VarintType)
		b = protowire.AppendVarint(b, eventTypeDelete)
	}
	b = protowire.AppendTag(b, eventKv, protowire.BytesType)
	b = protowire.AppendBytes(b, event.GetKv())
	if previous && len(event.GetPreviousKv()) > 0 {
		b = protowire.AppendTag(b, eventPrevKv, protowire.BytesType)
		b = protowire.AppendBytes(b, event.GetPreviousKv())
	}
	return b
}

// Len is the number of revisions.
func (e *Events) Len() int { return len(e.revisions) }

// Revision is the i-th revision.
func (e *Events) Revision(i int) int64 { return e.revisions[i].revision }

// After gives the position of the first revision above r.
func (e *Events) After(r int64) int {
	if len(e.revisions) == 0 || e.revisions[0].revision > r {
		return 0
	}
	return sort.Search(len(e.revisions), func(i int) bool { return e.revisions[i].revision > r })
}

// Bytes gives the encoded revisions [from, to).
func (e *Events) Bytes(from, to int) []byte {
	if from >= to {
		return nil
	}
	return e.data[e.start(from):e.revisions[to-1].end]
}

// Count is the number of events in the revisions [from, to).
func (e *Events) Count(from, to int) int {
	if from >= to || len(e.eventEnds) == len(e.revisions) { // mostly each has one
		return max(0, to-from)
	}
	return sort.SearchInts(e.eventEnds, e.revisions[to-1].end) - sort.SearchInts(e.eventEnds, e.start(from)+1) + 1
}

// Size is len(Bytes(from, to)).
func (e *Events) Size(from, to int) int {
	if from >= to {
		return 0
	}
	return e.revisions[to-1].end - e.start(from)
}

// Split cuts the i-th revision into runs of whole events, each below bytesMax where an event alone is.
func (e *Events) Split(i, bytesMax int) [][]byte {
	start, end := e.start(i), e.revisions[i].end
	first := sort.SearchInts(e.eventEnds, start+1)
	var parts [][]byte
	last := start
	for k := first; k < len(e.eventEnds) && e.eventEnds[k] <= end; k++ {
		if e.eventEnds[k]-start > bytesMax && last > start {
			parts = append(parts, e.data[start:last])
			start = last
		}
		last = e.eventEnds[k]
	}
	return append(parts, e.data[start:last])
}

// Spans calls yield with the span context of every sampled write in the revisions [from, to).
func (e *Events) Spans(from, to int, yield func(context []byte)) {
	for _, span := range e.spans {
		if from < to && span.revision >= e.revisions[from].revision && span.revision <= e.revisions[to-1].revision {
			yield(span.context)
		}
	}
}

func (e *Events) start(i int) int {
	if i == 0 {
		return 0
	}
	return e.revisions[i-1].end
}
