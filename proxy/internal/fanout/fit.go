package fanout

import (
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/proxy/internal/routing"
)

const (
	// muteAfter is how long a hub may say nothing before it gets no new watches; it says something every second.
	muteAfter = 2500 * time.Millisecond
	// behindAfter is how old a revision must be that a hub without anything to tell has not reached, to count as behind: it may
	// have lost its feed and not know it, or follow a node that lags.
	behindAfter = 3 * time.Second
	// remembered is how long it is remembered what was known when: the longest lag that is measured.
	remembered = time.Minute
	// balanceAfter is how long the hubs must have been the same before watches are spread over them anew, and balanceMax how
	// many move at a time.
	balanceAfter = time.Second
	balanceMax   = 1024
)

// sampled is what was known at a moment.
type sampled struct {
	at       time.Time
	revision int64
}

// know takes in that a revision exists.
func (h *Hubs) know(revision int64) {
	for known := h.known.Load(); revision > known; known = h.known.Load() {
		if h.known.CompareAndSwap(known, revision) {
			return
		}
	}
}

// sample moves due on. The caller holds h.mu.
func (h *Hubs) sample(now time.Time) {
	h.samples = append(h.samples, sampled{now, h.known.Load()})
	for len(h.samples) > 0 && now.Sub(h.samples[0].at) >= remembered {
		h.samples = h.samples[1:]
	}
	for _, s := range slices.Backward(h.samples) {
		if now.Sub(s.at) >= behindAfter {
			h.due.Store(s.revision)
			break
		}
	}
}

// tellLag measures the link that is furthest behind. The caller holds h.mu.
func (h *Hubs) tellLag(now time.Time) {
	if h.config.Seen == nil {
		return
	}
	known := h.known.Load()
	position := known
	for _, l := range h.links {
		if l.watched() {
			position = min(position, l.told.Load())
		}
	}
	since := now
	for _, s := range slices.Backward(h.samples) {
		if s.revision <= position {
			break
		}
		since = s.at
	}
	h.config.Seen.Lag(known-position, now.Sub(since))
}

// fit are the hubs that are known to do their work now: heard a moment ago, neither leaving nor behind. Where the proxy runs
// beside a node, that node's hub is the only one if it is fit: it knows what the node has applied, whatever becomes of the
// network. The caller holds h.mu.
func (h *Hubs) fit(table *routing.Table, now time.Time) []routing.Hub {
	return h.some(table, func(l *link) bool {
		return l != nil && l.heard.Load() > 0 && !l.mute(now) && !l.leaving.Load() && !l.behind.Load()
	})
}

// candidates are the hubs that take registrations now: fit ones; else those that were not heard yet, as at the start; else
// those that are behind, which is better than nothing. The caller holds h.mu.
func (h *Hubs) candidates(table *routing.Table, now time.Time) []routing.Hub {
	hubs := h.fit(table, now)
	if len(hubs) == 0 {
		hubs = h.some(table, func(l *link) bool { return l == nil || !l.mute(now) && !l.leaving.Load() && !l.behind.Load() })
	}
	if len(hubs) == 0 {
		hubs = h.some(table, func(l *link) bool { return l != nil && !l.leaving.Load() })
	}
	return hubs
}

// some are the hubs that are not avoided and whose link, or nil, is as asked.
func (h *Hubs) some(table *routing.Table, is func(*link) bool) []routing.Hub {
	var hubs []routing.Hub
	for _, hub := range table.Hubs {
		if _, avoided := h.avoid[hub]; avoided || !is(h.links[hub]) {
			continue
		}
		if table.Own != "" && hub.Address == table.Own {
			return []routing.Hub{hub}
		}
		hubs = append(hubs, hub)
	}
	return hubs
}

// probe opens a stream to each hub that has none, so that it is known to be fit before it is needed. A proxy beside a node needs no
// others while that node's hub is fit. The caller holds h.mu.
func (h *Hubs) probe(table *routing.Table, fit []routing.Hub) {
	if h.ctx == nil || h.ctx.Err() != nil || len(fit) > 0 && fit[0].Address == table.Own {
		return
	}
	for _, hub := range h.some(table, func(l *link) bool { return l == nil }) {
		h.link(hub)
	}
}

// balance gives some of the registrations that belong to another fit hub than the one they are at, once the fit hubs have been
// the same for a while: a new hub takes its share. The caller holds h.mu.
func (h *Hubs) balance(fit []routing.Hub, now time.Time) []*registration {
	if !slices.Equal(fit, h.present) {
		h.present, h.steady = fit, now
	}
	if now.Sub(h.steady) >= balanceAfter && !slices.Equal(h.present, h.balanced) {
		h.balanced, h.misplaced = h.present, nil
		names := namesOf(fit)
		for _, reg := range h.regs {
			if reg.link != nil && slices.Contains(fit, reg.link.hub) && fit[chooseNamed(reg.spec.Key, names)] != reg.link.hub {
				h.misplaced = append(h.misplaced, reg)
			}
		}
	}
	n := min(balanceMax, len(h.misplaced))
	moves := h.misplaced[:n]
	h.misplaced = h.misplaced[n:]
	return moves
}
