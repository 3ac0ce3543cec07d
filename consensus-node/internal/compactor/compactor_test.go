package compactor_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/consensus-node/internal/compactor"
)

// TestTranscripts drives a compactor over a clock that only the transcript moves:
//
//	new mode=periodic|revision retention=TEXT revision=N
//	run until=DURATION per-tick=N [leader=false] [fails]
//	    ticks until that time since the start; the newest revision grows by N before each
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var (
			c        *compactor.Compactor
			now      time.Duration
			revision int64
		)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "new":
				var mode, text string
				d.ScanArgs(t, "mode", &mode)
				d.ScanArgs(t, "retention", &text)
				d.ScanArgs(t, "revision", &revision)
				retention, err := compactor.ParseRetention(compactor.Mode(mode), text)
				require.NoError(t, err)
				now = 0
				c = compactor.New(compactor.Mode(mode), retention, now, revision)
				return fmt.Sprintf("a tick every %v\n", c.Interval())
			case "run":
				var text string
				var perTick int64
				leader := true
				d.ScanArgs(t, "until", &text)
				d.ScanArgs(t, "per-tick", &perTick)
				d.MaybeScanArgs(t, "leader", &leader)
				until, err := time.ParseDuration(text)
				require.NoError(t, err)
				var out strings.Builder
				for now < until {
					now += c.Interval()
					revision += perTick
					at, ok := c.Tick(now, leader, revision)
					if !ok {
						continue
					}
					fmt.Fprintf(&out, "%v revision %d: compact %d\n", now, revision, at)
					if !d.HasArg("fails") {
						c.Done(now)
					}
				}
				return out.String()
			}
			d.Fatalf(t, "unknown command")
			return ""
		})
	})
}

// The forms that etcd takes, and what it refuses.
func TestParseRetention(t *testing.T) {
	for _, tc := range []struct {
		mode compactor.Mode
		text string
		want int64
		err  string
	}{
		{compactor.Periodic, "", 0, ""},
		{compactor.Periodic, "0", 0, ""},
		{compactor.Periodic, "2", int64(2 * time.Hour), ""},
		{compactor.Periodic, "5m", int64(5 * time.Minute), ""},
		{compactor.Revision, "1000", 1000, ""},
		{compactor.Revision, "1s", int64(time.Second), ""},
		{compactor.Periodic, "-1", 0, `"-1" is no number and no duration such as 30m`},
		{compactor.Periodic, "-5m", 0, `"-5m" is negative`},
		{compactor.Revision, "many", 0, `"many" is no number and no duration such as 30m`},
		{compactor.Periodic, "9999999", 0, "9999999 hours are too many"},
	} {
		got, err := compactor.ParseRetention(tc.mode, tc.text)
		if tc.err != "" {
			require.EqualError(t, err, tc.err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, tc.want, got, "%s %s", tc.mode, tc.text)
	}
}
