package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/deploy/cluster/runner"
)

func rowNamed(t *testing.T, name string) row {
	t.Helper()
	chosen := chooseRows(regexp.MustCompile("^(?:" + name + ")$"))
	require.Len(t, chosen, 1)
	return chosen[0]
}

func TestFiveRunsUnlessTold(t *testing.T) {
	s, err := parse(nil, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, 5, s.runs)
}

func TestOneClientAsksTheLeader(t *testing.T) {
	for _, r := range rows() {
		if strings.HasPrefix(r.name, "put-1-") || r.name == "put-1" {
			require.Equal(t, atLeader, r.place, r.name)
			continue
		}
		require.NotEqual(t, atLeader, r.place, r.name)
	}
	require.Contains(t, rowNamed(t, "put-1").about, "at the leader")
}

func TestRowsThatNeedThreeNodes(t *testing.T) {
	for _, name := range []string{"failover", "put-catchup"} {
		require.Equal(t, systemNames(), rowNamed(t, name).systems(systemNames()))
		require.Empty(t, chooseRows(regexp.MustCompile("^"+name+oneNode+"$")))
	}
	require.Equal(t, 1, rowNamed(t, "put-snapshot-one").nodes)
}

// Every node of every system gets the row's flags, and no other process does.
func TestFlagsAreTheSameOnBothSides(t *testing.T) {
	for _, name := range systemNames() {
		sys, err := systemNamed(name)
		require.NoError(t, err)
		for _, r := range []row{rowNamed(t, "put-catchup"), rowNamed(t, "put-1")} {
			for _, p := range slices.Concat(sys.layout(settings{}, r, "", runner.DefaultPorts()).Tiers...) {
				at := slices.Index(p.Args, "--snapshot-count")
				if !slices.Contains(nodeNames(), p.Name) || r.args == nil {
					require.Negative(t, at, "%s of %s", p.Name, name)
					continue
				}
				require.Equal(t, shortLogs(), p.Args[at:at+len(shortLogs())], "%s of %s", p.Name, name)
			}
		}
	}
}

func TestTmpfs(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if fields[2] == "proc" || (fields[2] == "tmpfs" && fields[1] == "/dev/shm") {
			require.Equal(t, fields[2] == "tmpfs", isTmpfs(fields[1]), line)
		}
	}
	require.False(t, isTmpfs("/proc"))
	require.False(t, isTmpfs(filepath.Join(t.TempDir(), "nothing")))
}

// Without a tmpfs the row says so, and nothing is started.
func TestRowWithoutTmpfs(t *testing.T) {
	var out bytes.Buffer
	s := settings{tmpfs: "/proc", runs: 1, systems: systemNames(), out: filepath.Join(t.TempDir(), "results")}
	require.NoError(t, compare(t.Context(), s, []row{rowNamed(t, "put-1-tmpfs")}, &out, &out))
	require.Equal(t, "put-1-tmpfs              left out: /proc is no tmpfs (-tmpfs=FOLDER names one)\n", out.String())
}

func TestGapColumns(t *testing.T) {
	var out bytes.Buffer
	put := result{Row: "put-1", System: etcd, Run: 1, OpsPerS: 1, CPUUsPerOp: 1, P50Ms: 1, P99Ms: 1, RSSMB: 1}
	writeTable(&out, []result{put})
	require.NotContains(t, out.String(), "gap_ms")
	out.Reset()
	writeTable(&out, []result{
		put,
		{Row: "put-1", System: split, Run: 1, OpsPerS: 1, CPUUsPerOp: 1, P50Ms: 1, P99Ms: 1, RSSMB: 1},
		{Row: "failover", System: etcd, Run: 1, OpsPerS: 1, CPUUsPerOp: 1, P50Ms: 1, P99Ms: 1, RSSMB: 1, GapMs: 2000, GapMedianMs: 1000},
		{Row: "failover", System: split, Run: 1, OpsPerS: 1, GapMs: 1000, GapMedianMs: 800},
	})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Regexp(t, `rss MB +gap_ms +gap_median_ms`, lines[0])
	require.Regexp(t, ` - +- *$`, lines[1])
	require.NotContains(t, out.String(), "NaN")
	require.Regexp(t, ` 2000 \[2000\.\.2000\] +1000 \[1000\.\.1000\] *$`, lines[4])
	require.Regexp(t, ` 0\.50x \[0\.50\.\.0\.50\] +0\.80x \[0\.80\.\.0\.80\] *$`, lines[6])
	out.Reset()
	require.NoError(t, put.writeLine(&out))
	require.NotContains(t, out.String(), "gap")
	put.GapMs, put.GapMedianMs = 7, 5
	require.NoError(t, put.writeLine(&out))
	require.Contains(t, out.String(), `"gap_ms":7,"gap_median_ms":5`)
	require.Contains(t, put.String(), "gap 7 ms (median 5 ms)")
}

func TestLoadAtItsLimitIsSaid(t *testing.T) {
	for load, limited := range map[float64]bool{0.89: false, 0.9: true, 1: true} {
		r := result{Row: "put-1", System: etcd, LoadCPU: load, ServerCPU: 1}
		require.Equal(t, limited, strings.Contains(r.String(), "THE LOAD WAS THE LIMIT"), load)
		var out bytes.Buffer
		writeTable(&out, []result{r, {Row: "put-1", System: etcd, Run: 2}})
		require.Equal(t, limited, strings.Contains(out.String(), "the load was the limit in 1 of 2 runs"), load)
	}
}
