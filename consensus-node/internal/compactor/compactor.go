package compactor

import (
	"fmt"
	"strconv"
	"time"
)

// Mode is how the retention is meant.
type Mode string

// The modes, by their names in --auto-compaction-mode.
const (
	Periodic Mode = "periodic"
	Revision Mode = "revision"
)

const (
	revisionInterval = 5 * time.Minute
	periodMax        = time.Hour
	samplesPerPeriod = 10
)

// ParseRetention reads --auto-compaction-retention as etcd does. A plain number is hours, or revisions in that mode;
// anything else is a duration (in nanoseconds where revisions are counted). 0 turns automatic compaction off. A negative
// one is an error.
func ParseRetention(mode Mode, text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		if mode == Revision {
			return int64(n), nil
		}
		if int64(n) > int64(1<<63-1)/int64(time.Hour) {
			return 0, fmt.Errorf("%s hours are too many", text)
		}
		return int64(n) * int64(time.Hour), nil
	}
	period, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no number and no duration such as 30m", text)
	case period < 0:
		return 0, fmt.Errorf("%q is negative", text)
	}
	return int64(period), nil
}

// Compactor is the state of automatic compaction on one node.
type Compactor struct {
	mode      Mode
	retention int64

	// samples are the newest revisions, the oldest first, taken an Interval apart.
	samples []int64
	// due is how long after the last compaction, or the start, the next one comes; since is when that was.
	due   time.Duration
	since time.Duration
	// done is the revision of the last compaction, asked the one that is under way.
	done, asked int64
}

// New begins at a time, when the newest revision is the one given. retention is what ParseRetention gave, and not 0.
func New(mode Mode, retention int64, now time.Duration, revision int64) *Compactor {
	c := &Compactor{mode: mode, retention: retention, since: now}
	if mode == Periodic {
		c.due = time.Duration(retention)
		c.sample(revision)
	}
	return c
}

// Interval is the time between two calls of Tick.
func (c *Compactor) Interval() time.Duration {
	if c.mode == Revision {
		return revisionInterval
	}
	// A period of a few nanoseconds is of no use to anybody, and must not make the caller spin.
	return max(min(time.Duration(c.retention), periodMax)/samplesPerPeriod, time.Millisecond)
}

// Tick tells the time and the newest revision, and gives the revision to compact at, if now is the time for it and this node
// leads. Done comes before the next Tick then.
func (c *Compactor) Tick(now time.Duration, leader bool, revision int64) (at int64, compact bool) {
	at, compact = c.decide(now, revision)
	if c.mode == Periodic {
		c.sample(revision)
	}
	if !leader || !compact {
		return 0, false
	}
	c.asked = at
	return at, true
}

func (c *Compactor) decide(now time.Duration, revision int64) (at int64, compact bool) {
	if c.mode == Revision {
		at = revision - c.retention
		return at, at > 0 && at != c.done
	}
	at = c.samples[0]
	return at, now-c.since >= c.due && at != c.done
}

// Done tells that the compaction that Tick asked for is done, by this node or another.
func (c *Compactor) Done(now time.Duration) {
	c.done, c.since = c.asked, now
	c.due = min(time.Duration(c.retention), periodMax)
}

// sample keeps the revisions of the last period, with both its ends.
func (c *Compactor) sample(revision int64) {
	c.samples = append(c.samples, revision)
	if keep := int(c.retention/int64(c.Interval())) + 1; len(c.samples) > keep {
		c.samples = c.samples[len(c.samples)-keep:]
	}
}
