package window_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/window"
)

const clusterID = 0xc1

// The transcripts drive a follower with a window behind it. Commands:
//
//	new [pending=BYTES] [window=BYTES]
//	message FROM TO [head=R] [compact=R] [publisher=N] [run=N] [part=I/N] [cluster=N] [body_less] [reset] [only=R,R,...]
//	jump R
//	after R upTo=R [revisions=N]
func TestFollower(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var follower *window.Follower
		var win *window.Window
		show := func(accepted []window.Interval) string {
			var out strings.Builder
			for _, i := range accepted {
				win.Append(i)
				fmt.Fprintf(&out, "accepted %s\n", interval(i))
			}
			need, missing := follower.Need()
			fmt.Fprintf(&out, "position %d head %d compact %d", follower.Position(), follower.Head(), follower.Compact())
			if missing {
				fmt.Fprintf(&out, " needs (%d, %d] because of %s", need.After, need.UpTo, need.Cause)
			}
			if follower.Refused() > 0 {
				fmt.Fprintf(&out, " refused %d", follower.Refused())
			}
			return out.String() + "\n"
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				limits := window.DefaultLimits()
				d.MaybeScanArgs(t, "pending", &limits.PendingBytes)
				bytes := 1 << 20
				d.MaybeScanArgs(t, "window", &bytes)
				follower, win = window.NewFollower(clusterID, limits), window.New(bytes)
				return ""
			case "message":
				m := message(t, d)
				if !follower.Started() && m.GetClusterId() == clusterID {
					win.Reset(m.GetPreviousRevision())
				}
				return show(follower.Receive(m))
			case "jump":
				to := number(t, d.CmdArgs[0].Key)
				win.Reset(to)
				return show(follower.Jump(to))
			case "after":
				upTo, revisions := win.Last(), 100
				d.MaybeScanArgs(t, "upTo", &upTo)
				d.MaybeScanArgs(t, "revisions", &revisions)
				return fmt.Sprintf("(%d, %d] %s\n", win.Base(), win.Last(), interval(win.After(number(t, d.CmdArgs[0].Key), upTo, revisions, 1<<20)))
			}
			t.Fatalf("unknown command %s", d.Cmd)
			return ""
		})
	})
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err)
	return n
}

func interval(i window.Interval) string {
	var revisions []string
	for _, r := range i.Revisions {
		revisions = append(revisions, fmt.Sprintf("%d*%d", r.GetRevision(), len(r.GetEvents())))
	}
	return fmt.Sprintf("(%d, %d] [%s]", i.From, i.To, strings.Join(revisions, " "))
}

func message(t *testing.T, d *datadriven.TestData) *feedv1.Message {
	t.Helper()
	from, to := number(t, d.CmdArgs[0].Key), number(t, d.CmdArgs[1].Key)
	m := &feedv1.Message{Version: 1, ClusterId: clusterID, Publisher: 1, PublisherRun: 1, PreviousRevision: from, LastRevision: to, HeadRevision: to}
	d.MaybeScanArgs(t, "head", &m.HeadRevision)
	d.MaybeScanArgs(t, "compact", &m.CompactRevision)
	d.MaybeScanArgs(t, "publisher", &m.Publisher)
	d.MaybeScanArgs(t, "run", &m.PublisherRun)
	d.MaybeScanArgs(t, "cluster", &m.ClusterId)
	m.BodyLess, m.Reset_ = d.HasArg("body_less"), d.HasArg("reset")
	if d.HasArg("part") {
		var part string
		d.ScanArgs(t, "part", &part)
		i, n, _ := strings.Cut(part, "/")
		m.Part, m.Parts = uint32(number(t, i)), uint32(number(t, n))
	}
	var only []string
	for _, arg := range d.CmdArgs {
		if arg.Key == "only" {
			only = arg.Vals
		}
	}
	if only == nil {
		for r := from + 1; r <= to; r++ {
			only = append(only, strconv.FormatInt(r, 10))
		}
	}
	if !m.GetBodyLess() {
		for _, r := range only {
			m.Revisions = append(m.Revisions, &feedv1.Revision{Revision: number(t, r), Events: []*feedv1.Event{{Key: []byte("k"), Kv: []byte("v" + r)}}})
		}
	}
	return m
}

func TestValueAtIsExact(t *testing.T) {
	w := window.New(1 << 20)
	w.Reset(10)
	w.Append(window.Interval{From: 10, To: 13, Revisions: []*feedv1.Revision{
		{Revision: 11, Events: []*feedv1.Event{{Key: []byte("a"), Kv: []byte("a11")}, {Key: []byte("b"), Kv: []byte("b11")}}},
		{Revision: 13, Events: []*feedv1.Event{{Key: []byte("a"), Deleted: true, Kv: []byte("a13")}}},
	}})
	value, ok := w.ValueAt("b", 11)
	require.True(t, ok)
	require.Equal(t, []byte("b11"), value)
	for _, at := range []int64{10, 12, 13, 14} {
		_, ok = w.ValueAt("a", at)
		require.False(t, ok, "revision %d", at)
	}
	_, ok = w.ValueAt("c", 11)
	require.False(t, ok)
}
