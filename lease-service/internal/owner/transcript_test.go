package owner_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/holdfastdb/holdfast/lease-service/internal/expiry"
	"github.com/holdfastdb/holdfast/lease-service/internal/owner"
	"github.com/holdfastdb/holdfast/lease-service/internal/ownership"
	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// TestTranscripts runs the cores of instances named a, b and c, each in its first start unless told otherwise. A line is
//
//	TIME INSTANCE command arguments
//
// and prints what came of it. "outcome" is of the last decision, or of the one taken by the table of=SEQUENCE. Leases 1 to 20 are enough to find one for each owner; "owners" tells which.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		script := &script{t: t, cores: map[string]*owner.Core{}, decisions: map[string]owner.Decision{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(d.Input) {
				out.WriteString(script.line(strings.Fields(line)))
			}
			return out.String()
		})
	})
}

// checkpoint is how much of a lease may pass until its rest is to be recorded.
const checkpoint = 5 * time.Minute

type script struct {
	t         *testing.T
	cores     map[string]*owner.Core
	decisions map[string]owner.Decision
}

func (s *script) core(name string) *owner.Core {
	if s.cores[name] == nil {
		base, incarnation := identity(name)
		s.cores[name] = owner.New(&feedv1.Instance{Name: base, Incarnation: incarnation}, checkpoint, ownership.DriftDefault)
	}
	return s.cores[name]
}

// identity reads "a" or "a/2": a name and a start.
func identity(text string) (string, uint64) {
	name, start, _ := strings.Cut(text, "/")
	incarnation, _ := strconv.ParseUint(start, 10, 64)
	return name, max(incarnation, 1)
}

// args are the words after the command: bare numbers and key=value.
type args struct {
	ids    []int64
	values map[string]string
}

func parse(words []string) args {
	a := args{values: map[string]string{}}
	for _, word := range words {
		if key, value, ok := strings.Cut(word, "="); ok {
			a.values[key] = value
		} else {
			id, _ := strconv.ParseInt(word, 10, 64)
			a.ids = append(a.ids, id)
		}
	}
	return a
}

func (a args) number(key string) uint64 {
	n, _ := strconv.ParseUint(a.values[key], 10, 64)
	return n
}

func (a args) duration(key string, fallback time.Duration) time.Duration {
	if d, err := time.ParseDuration(a.values[key]); err == nil {
		return d
	}
	return fallback
}

// view reads epoch=2 on=a,b/2 gone=b released=c.
func (a args) view() *feedv1.View {
	view := &feedv1.View{Epoch: a.number("epoch")}
	list := func(key string) []string {
		if a.values[key] == "" {
			return nil
		}
		return strings.Split(a.values[key], ",")
	}
	for _, text := range list("on") {
		name, incarnation := identity(text)
		view.Instances = append(view.Instances, &feedv1.Instance{Name: name, Incarnation: incarnation})
	}
	for _, key := range []string{"gone", "released"} {
		for _, text := range list(key) {
			name, incarnation := identity(text)
			view.Departed = append(view.Departed, &feedv1.Departed{Name: name, Incarnation: incarnation, Released: key == "released"})
		}
	}
	return view
}

// leases reads leases=1:10,2:20:5:7 as id, TTL, checkpointed rest and sequence of the grant.
func (a args) leases() []*consensusv1.LeaseEntry {
	var entries []*consensusv1.LeaseEntry
	for text := range strings.SplitSeq(a.values["leases"], ",") {
		var numbers [4]int64
		for i, part := range strings.Split(text, ":") {
			numbers[i], _ = strconv.ParseInt(part, 10, 64)
		}
		if numbers[0] != 0 {
			entries = append(entries, &consensusv1.LeaseEntry{
				Id: numbers[0], TtlS: numbers[1], RemainingTtlS: numbers[2], GrantedSequence: uint64(numbers[3]),
			})
		}
	}
	return entries
}

func (s *script) line(words []string) string {
	now, err := time.ParseDuration(words[0])
	if err != nil {
		s.t.Fatal(err)
	}
	name, a := words[1], parse(words[3:])
	return fmt.Sprintf("%s %s: %s\n", words[0], name, s.run(now, name, words[2], a))
}

func (s *script) run(now time.Duration, name, command string, a args) string {
	core := s.core(name)
	sequence := a.number("seq")
	switch command {
	case "load":
		return s.mine(core, core.Load(now, sequence, a.view(), a.leases(), nil)...)
	case "granted":
		return s.apply(now, core, &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Granted{
			Granted: &feedv1.LeaseGranted{Id: a.ids[0], TtlS: int64(a.number("ttl"))},
		}})
	case "revoked":
		return s.apply(now, core, &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Revoked{
			Revoked: &feedv1.LeaseRevoked{Ids: a.ids, Expired: a.values["expired"] != ""},
		}})
	case "checkpoint":
		return s.apply(now, core, &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_Checkpoint{
			Checkpoint: &feedv1.LeaseCheckpoint{Id: a.ids[0], RemainingTtlS: int64(a.number("rest"))},
		}})
	case "view":
		return s.apply(now, core, &feedv1.LeaseChange{Sequence: sequence, Change: &feedv1.LeaseChange_View{View: a.view()}})
	case "beat":
		core.Confirmed(now, ownership.Confirmation{
			Sent: a.duration("sent", now), View: a.view(), Sequence: sequence, Removal: a.duration("removal", 2*time.Second),
		})
		return fmt.Sprintf("holds=%v", core.Holds(now))
	case "awake": // confirmed each second since a time
		for at := a.duration("since", now); at <= now; at += time.Second {
			core.Confirmed(at, ownership.Confirmation{Sent: at, View: a.view(), Sequence: sequence, Removal: 2 * time.Second})
		}
		return fmt.Sprintf("holds=%v", core.Holds(now))
	case "leave":
		core.Leave()
		return fmt.Sprintf("holds=%v", core.Holds(now))
	}
	return s.ask(now, name, command, a)
}

// ask runs the commands of proxies and of the clock.
func (s *script) ask(now time.Duration, name, command string, a args) string {
	core := s.core(name)
	verdicts := [...]string{"known", "not owner", "unknown", "wait"}
	switch command {
	case "keep":
		verdict, ttl := core.KeepAlive(now, a.ids[0])
		if verdict == owner.Known {
			return fmt.Sprintf("renewed ttl=%d", ttl)
		}
		return verdicts[verdict]
	case "rest":
		verdict, rest := core.Remaining(now, a.ids[0])
		if verdict == owner.Known {
			return fmt.Sprintf("rest=%d", rest)
		}
		return verdicts[verdict]
	case "stop":
		verdict, err := core.Stop(now, a.ids[0], a.number("ticket"))
		if verdict == owner.Known {
			return "stopped"
		}
		return fmt.Sprintf("%s %v", verdicts[verdict], err)
	case "over":
		core.Over(now, a.ids[0], a.number("ticket"))
		return fmt.Sprintf("to be read: %v", core.Stopped(now, 10))
	case "stopped":
		return fmt.Sprintf("to be read: %v", core.Stopped(now, 10))
	case "resume":
		core.Resume(a.duration("began", now), a.ids[0], a.number("seq"))
		return s.mine(core)
	case "rests":
		epoch, sequence, rests := core.Rests(now, 10)
		out := fmt.Sprintf("epoch=%d seq=%d", epoch, sequence)
		for _, rest := range rests {
			out += fmt.Sprintf(" %d:%d", rest.GetId(), rest.GetRemainingTtlS())
		}
		return out
	case "clears":
		epoch, ids := core.Clears(10)
		return fmt.Sprintf("epoch=%d %v", epoch, ids)
	case "tick":
		late := core.Tick(now)
		d := core.Decide(now, 10)
		if len(d.IDs) > 0 {
			s.decisions[name], s.decisions[fmt.Sprintf("%s@%d", name, d.Sequence)] = d, d
		}
		return fmt.Sprintf("late=%v decides=%v epoch=%d seq=%d", late, d.IDs, d.Epoch, d.Sequence)
	case "outcome":
		d := s.decisions[name]
		if a.values["of"] != "" {
			d = s.decisions[name+"@"+a.values["of"]]
		}
		outcomes := slices.Repeat([]consensusv1.ExpireOutcome{
			consensusv1.ExpireOutcome(consensusv1.ExpireOutcome_value["EXPIRE_OUTCOME_"+a.values["is"]]),
		}, len(d.IDs))
		core.Outcome(now, d, outcomes)
		return fmt.Sprintf("standing=%v %s", core.Standing(d), s.mine(core))
	}
	s.t.Fatalf("unknown command %s", command)
	return ""
}

func (s *script) apply(now time.Duration, core *owner.Core, change *feedv1.LeaseChange) string {
	events, err := core.Apply(now, change, nil)
	if err != nil {
		return err.Error()
	}
	return s.mine(core, events...)
}

// mine lists the leases whose clocks run, with their deadlines, and what is announced.
func (s *script) mine(core *owner.Core, events ...owner.Event) string {
	var parts []string
	for id := int64(1); id <= 20; id++ {
		lease, ok := core.Lease(id)
		if !ok || lease.State == expiry.Foreign {
			continue
		}
		text := fmt.Sprintf("%d@%v", id, lease.Deadline)
		if lease.State != expiry.Live {
			text += "(" + lease.State.String() + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		parts = []string{"owns nothing"}
	}
	for _, event := range events {
		parts = append(parts, fmt.Sprintf("%s(%d)", strings.ToLower(strings.TrimPrefix(event.Kind.String(), "KIND_")), event.Lease))
	}
	return strings.Join(parts, " ")
}
