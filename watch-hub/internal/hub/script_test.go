package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
	"github.com/holdfastdb/holdfast/watch-hub/internal/hub"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

// The transcripts drive a core between a naive tier and one proxy stream per number. Commands:
//
//	new [window=BYTES] [queue=BYTES]
//	write KEY...             one revision for each; "-KEY" deletes
//	publish FROM TO [compact=R]
//	open STREAM
//	register STREAM ID KEY next=R [end=KEY] [no_put] [no_delete] [prev]
//	cancel STREAM ID
//	work                     until there is nothing more to do at once
//	history PASS FROM TO
//	ended PASS [compacted]
//	values KEY@R...
//	compacted                the live position's need cannot be filled
//	tick
//	take STREAM              responses until the queue is empty
type script struct {
	tier   *tier
	core   *hub.Core
	queues map[uint64]*egress.Queue
	limits egress.Limits
}

func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "new" {
				s.begin(t, d)
				return ""
			}
			return s.run(t, d)
		})
	})
}

func (s *script) begin(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	bytes := 1 << 20
	d.MaybeScanArgs(t, "window", &bytes)
	s.limits = egress.DefaultLimits()
	d.MaybeScanArgs(t, "queue", &s.limits.QueueBytes)
	s.tier, s.queues = newTier(), map[uint64]*egress.Queue{}
	s.core = hub.New(hub.Config{ClusterID: clusterID, WindowBytes: bytes, Limits: hub.DefaultLimits(), Follower: window.DefaultLimits()})
}

func arg(t *testing.T, d *datadriven.TestData, i int) int64 {
	t.Helper()
	var n int64
	if _, err := fmt.Sscan(d.CmdArgs[i].Key, &n); err != nil {
		t.Fatalf("%s: argument %d: %v", d.Pos, i, err)
	}
	return n
}

func (s *script) run(t *testing.T, d *datadriven.TestData) string {
	t.Helper()
	switch d.Cmd {
	case "write":
		for _, a := range d.CmdArgs {
			s.tier.write(a.Key)
		}
		return fmt.Sprintf("head %d\n", s.tier.head())
	case "publish":
		d.MaybeScanArgs(t, "compact", &s.tier.compact)
		s.core.Receive(s.tier.message(1, 1, arg(t, d, 0), arg(t, d, 1)))
	case "open":
		id := uint64(arg(t, d, 0))
		s.queues[id] = egress.New(s.limits)
		s.core.Open(id, s.queues[id])
	case "register":
		r := &watchv1.Registration{
			Id: uint64(arg(t, d, 1)), Key: []byte(d.CmdArgs[2].Key), NoPut: d.HasArg("no_put"), NoDelete: d.HasArg("no_delete"), PreviousKv: d.HasArg("prev"),
		}
		d.ScanArgs(t, "next", &r.NextRevision)
		var end string
		if d.MaybeScanArgs(t, "end", &end); end != "" {
			r.RangeEnd = []byte(end)
		}
		s.core.Register(uint64(arg(t, d, 0)), r)
	case "cancel":
		s.core.Cancel(uint64(arg(t, d, 0)), uint64(arg(t, d, 1)))
	case "work":
		for s.core.Work() {
		}
	case "history":
		m := s.tier.message(2, 1, arg(t, d, 1), arg(t, d, 2))
		s.core.History(uint64(arg(t, d, 0)), m)
	case "ended":
		s.core.HistoryEnded(uint64(arg(t, d, 0)), d.HasArg("compacted"))
	case "values":
		s.values(t, d)
	case "compacted":
		return fmt.Sprintf("%t\n", s.core.LiveCompacted()) + s.effects()
	case "tick":
		s.core.Tick()
	case "take":
		return s.take(uint64(arg(t, d, 0)))
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return s.effects()
}

func (s *script) values(t *testing.T, d *datadriven.TestData) {
	t.Helper()
	var keys []*consensusv1.KeyAt
	var kvs [][]byte
	for _, a := range d.CmdArgs {
		key, at, _ := strings.Cut(a.Key, "@")
		k := &consensusv1.KeyAt{Key: []byte(key)}
		if _, err := fmt.Sscan(at, &k.ModRevision); err != nil {
			t.Fatal(err)
		}
		keys, kvs = append(keys, k), append(kvs, fmt.Appendf(nil, "v%s", at))
	}
	s.core.Values(keys, kvs)
}

func (s *script) effects() string {
	var out strings.Builder
	for _, e := range s.core.Take() {
		switch e := e.(type) {
		case hub.StartHistory:
			fmt.Fprintf(&out, "history %d: (%d, %d] of %d ranges\n", e.Pass, e.After, e.UpTo, len(e.Ranges))
		case hub.Processed:
			fmt.Fprintf(&out, "processed %d\n", e.Pass)
		case hub.StopHistory:
			fmt.Fprintf(&out, "stop %d\n", e.Pass)
		case hub.LookUp:
			fmt.Fprint(&out, "look up")
			for _, k := range e.Keys {
				fmt.Fprintf(&out, " %s@%d", k.GetKey(), k.GetModRevision())
			}
			fmt.Fprintln(&out)
		}
	}
	stats := s.core.Stats()
	fmt.Fprintf(&out, "position %d window from %d registrations %d live %d\n", stats.Position, stats.WindowBase, stats.Registrations, stats.Live)
	return out.String()
}

func (s *script) take(id uint64) string {
	var out strings.Builder
	for {
		r, relieved := s.queues[id].Take()
		if relieved {
			s.core.Relieved(id)
		}
		if r == nil {
			return out.String()
		}
		fmt.Fprintf(&out, "response live (%d, %d]", r.GetLiveFrom(), r.GetLiveTo())
		for _, e := range r.GetEnded() {
			fmt.Fprintf(&out, " ended %d", e.GetId())
			if e.GetCompactRevision() > 0 {
				fmt.Fprintf(&out, " compacted at %d", e.GetCompactRevision())
			} else {
				fmt.Fprintf(&out, " (%s)", e.GetReason())
			}
		}
		if len(r.GetJoined()) > 0 {
			fmt.Fprintf(&out, " joined %v", slices.Sorted(slices.Values(r.GetJoined())))
		}
		fmt.Fprintln(&out)
		// The order of deliveries to different registrations means nothing.
		var deliveries []string
		for _, d := range r.GetDeliveries() {
			var events []string
			for _, revision := range d.GetRevisions() {
				events = append(events, words(revision, true)...)
			}
			ids := slices.Sorted(slices.Values(d.GetRegistrations()))
			deliveries = append(deliveries, fmt.Sprintf("  to %v (%d, %d]: %s\n", ids, d.GetFrom(), d.GetTo(), strings.Join(events, " ")))
		}
		slices.Sort(deliveries)
		fmt.Fprint(&out, strings.Join(deliveries, ""))
	}
}
