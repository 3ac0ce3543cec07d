package window

import (
	"slices"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// partsMax bounds the parts of one message.
const partsMax = 1 << 16

// setsMax bounds the changes whose parts are awaited at a time.
const setsMax = 8

// parts joins changes that came in parts. Parts of two publishers, of two runs of one, or of two starting points never
// join. What stays incomplete is found missing later and fetched.
type parts struct {
	bytesMax int
	sets     []*set // oldest first
	bytes    int
}

type setKey struct {
	publisher, run uint64
	previous, last int64
	parts          uint32
}

// set is the parts of one message that have come.
type set struct {
	key   setKey
	parts []*feedv1.Message
	have  int
	bytes int
}

// join takes in a part and gives the whole message when it was the last one missing.
func (p *parts) join(m *feedv1.Message) *feedv1.Message {
	key := setKey{m.GetPublisher(), m.GetPublisherRun(), m.GetPreviousRevision(), m.GetLastRevision(), m.GetParts()}
	i := slices.IndexFunc(p.sets, func(s *set) bool { return s.key == key })
	if i < 0 {
		p.sets = append(p.sets, &set{key: key, parts: make([]*feedv1.Message, m.GetParts())})
		i = len(p.sets) - 1
	}
	s := p.sets[i]
	if at := m.GetPart() - 1; s.parts[at] == nil {
		size := m.SizeVT() + overhead
		s.parts[at] = m
		s.have++
		s.bytes += size
		p.bytes += size
	}
	if s.have < len(s.parts) {
		for len(p.sets) > setsMax || (p.bytes > p.bytesMax && len(p.sets) > 0) {
			p.drop(0)
		}
		return nil
	}
	p.drop(i)
	return s.whole()
}

// forget drops what lies at or below a position.
func (p *parts) forget(position int64) {
	p.sets = slices.DeleteFunc(p.sets, func(s *set) bool {
		if s.key.last > position {
			return false
		}
		p.bytes -= s.bytes
		return true
	})
}

func (p *parts) drop(i int) {
	p.bytes -= p.sets[i].bytes
	p.sets = slices.Delete(p.sets, i, i+1)
}

// whole joins the parts; a revision that goes on in the next part becomes one.
func (s *set) whole() *feedv1.Message {
	first := s.parts[0]
	m := &feedv1.Message{
		Version: first.GetVersion(), ClusterId: first.GetClusterId(), Publisher: s.key.publisher, PublisherRun: s.key.run,
		PreviousRevision: s.key.previous, LastRevision: s.key.last,
	}
	for _, part := range s.parts {
		for _, r := range part.GetRevisions() {
			n := len(m.Revisions)
			if n > 0 && m.Revisions[n-1].GetRevision() == r.GetRevision() {
				last := m.Revisions[n-1]
				m.Revisions[n-1] = &feedv1.Revision{
					Revision: r.GetRevision(), Events: slices.Concat(last.GetEvents(), r.GetEvents()),
					SpanContext: last.GetSpanContext(), AppliedUnixNs: last.GetAppliedUnixNs(),
				}
				continue
			}
			m.Revisions = append(m.Revisions, r)
		}
	}
	return m
}
