package liveness_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/holdfastdb/holdfast/consensus-node/internal/liveness"
	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
)

// TestTranscripts plays leaderships, heartbeats and decisions at given instants; each decision is applied.
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		keeper, view := liveness.New(), &feedv1.View{}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			t.Helper()
			var at int
			d.ScanArgs(t, "at-ms", &at)
			now := time.Duration(at) * time.Millisecond
			switch d.Cmd {
			case "lead":
				keeper.Lead(now)
			case "inherit":
				var since int
				d.ScanArgs(t, "since-ms", &since)
				keeper.Inherit(time.Duration(since) * time.Millisecond)
			case "follow":
				keeper.Follow()
			case "heartbeat":
				var name string
				var incarnation uint64
				d.ScanArgs(t, "name", &name)
				d.ScanArgs(t, "incarnation", &incarnation)
				keeper.Heartbeat(now, &feedv1.Instance{Name: name, Incarnation: incarnation}, d.HasArg("leave"))
			case "decide":
				change := keeper.Decide(now, view)
				if change == nil {
					return "no change\n"
				}
				view = &feedv1.View{Epoch: change.GetFromEpoch() + 1, Instances: change.GetInstances(), Departed: change.GetDeparted()}
				return describe(view)
			default:
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			return ""
		})
	})
}

func describe(view *feedv1.View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d\n", view.GetEpoch())
	for _, i := range view.GetInstances() {
		fmt.Fprintf(&b, "  %s incarnation %d\n", i.GetName(), i.GetIncarnation())
	}
	for _, d := range view.GetDeparted() {
		fmt.Fprintf(&b, "  departed %s incarnation %d released %t\n", d.GetName(), d.GetIncarnation(), d.GetReleased())
	}
	return b.String()
}
