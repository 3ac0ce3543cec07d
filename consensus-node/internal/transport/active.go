package transport

import "time"

// ActiveSince tells since when messages to member id can be delivered without a break; zero if they cannot now, or if id is not known.
func (t *Transport) ActiveSince(id uint64) time.Time {
	p, err := t.peer(id)
	if err != nil {
		return time.Time{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active
}

func (p *peer) setActive(since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch was := p.active; {
	case was.IsZero() && !since.IsZero():
		p.counts.active.Set(1)
	case !was.IsZero() && since.IsZero():
		p.counts.active.Set(0)
		p.counts.disconnected.Inc()
	}
	p.active = since
}
