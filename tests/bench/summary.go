package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// spread is the middle of several measurements and how far they lie apart.
type spread struct{ median, least, most float64 }

// spreadOf is the spread of values that are not empty; of an even number the middle is the mean of the two.
func spreadOf(values []float64) spread {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + median) / 2
	}
	return spread{median, sorted[0], sorted[len(sorted)-1]}
}

// ratios compares a system with etcd: the ratio of the medians, and the least and most of the ratios of runs that followed
// each other, which say how far the machine moved meanwhile. Runs without a partner are left out of those; without any pair all
// are not a number.
func ratios(ours, theirs map[int]float64) spread {
	var pairs, a, b []float64
	for run, value := range ours {
		a = append(a, value)
		if other, ok := theirs[run]; ok {
			pairs = append(pairs, value/other)
		}
	}
	for _, value := range theirs {
		b = append(b, value)
	}
	if len(pairs) == 0 {
		return spread{math.NaN(), math.NaN(), math.NaN()}
	}
	s := spreadOf(pairs)
	s.median = spreadOf(a).median / spreadOf(b).median
	return s
}

// column is one figure of the table.
type column struct {
	head, form string
	of         func(result) float64
	some       bool // only some rows have it: 0 is none
}

// columns are those that the results fill.
func columns(results []result) []column {
	all := []column{
		{"cpu us/op", "%.1f", func(r result) float64 { return r.CPUUsPerOp }, false},
		{"ops/s", "%.0f", func(r result) float64 { return r.OpsPerS }, false},
		{"p50 ms", "%.2f", func(r result) float64 { return r.P50Ms }, false},
		{"p99 ms", "%.2f", func(r result) float64 { return r.P99Ms }, false},
		{"commit_p99_ms", "%.2f", func(r result) float64 { return r.CommitP99Ms }, true},
		{"rss MB", "%.0f", func(r result) float64 { return r.RSSMB }, false},
		{"nodes us/op", "%.1f", func(r result) float64 { return r.NodesUsPerOp }, true},
		{"gap_ms", "%.0f", func(r result) float64 { return r.GapMs }, true},
		{"gap_median_ms", "%.0f", func(r result) float64 { return r.GapMedianMs }, true},
		{"quiet_p99_ms", "%.2f", func(r result) float64 { return r.QuietP99Ms }, true},
		{"x_quiet", "%.2f", func(r result) float64 { return r.XQuiet }, true},
		{"bytes_each", "%.0f", func(r result) float64 { return r.BytesEach }, true},
		{"loaded_mb", "%.0f", func(r result) float64 { return r.LoadedMB }, true},
		{"start_ms", "%.0f", func(r result) float64 { return r.StartMs }, true},
		{"started_mb", "%.0f", func(r result) float64 { return r.StartedMB }, true},
	}
	return slices.DeleteFunc(all, func(c column) bool { return !c.filled(results) })
}

// filled says whether any of the results has the figure.
func (c column) filled(results []result) bool {
	return !c.some || slices.ContainsFunc(results, func(r result) bool { return c.of(r) != 0 })
}

// writeTable prints for each row and system the medians with their spread, and below each system the ratios to etcd.
func writeTable(w io.Writer, results []result) {
	if len(results) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(table, "\nrow\tsystem\truns")
	columns := columns(results)
	for _, c := range columns {
		_, _ = fmt.Fprintf(table, "\t%s", c.head)
	}
	_, _ = fmt.Fprintln(table, "\t")
	for _, g := range grouped(results) {
		g.write(table, columns, baseline(results, g.row))
	}
	_ = table.Flush()
	_, _ = fmt.Fprintln(w, "median [least..most] of the runs; x: the ratio of the medians to etcd's [least..most of the ratios run by run]")
}

// group is all that was measured of one row on one system.
type group struct {
	row, system string
	results     []result
}

// grouped keeps the order in which rows and systems first come.
func grouped(results []result) []group {
	var out []group
	for _, r := range results {
		i := slices.IndexFunc(out, func(g group) bool { return g.row == r.Row && g.system == r.System })
		if i < 0 {
			out = append(out, group{row: r.Row, system: r.System})
			i = len(out) - 1
		}
		out[i].results = append(out[i].results, r)
	}
	return out
}

// baseline is what etcd did on the row; empty if it was not measured.
func baseline(results []result, row string) []result {
	return slices.DeleteFunc(slices.Clone(results), func(r result) bool { return r.Row != row || r.System != etcd })
}

func byRun(results []result, of func(result) float64) map[int]float64 {
	out := make(map[int]float64, len(results))
	for _, r := range results {
		out[r.Run] = of(r)
	}
	return out
}

// note says what makes the figures less than they seem.
func (g group) note() string {
	var notes []string
	if n := g.count(result.loadLimited); n > 0 {
		notes = append(notes, fmt.Sprintf("the load was the limit in %d of %d runs", n, len(g.results)))
	}
	if n := g.count(result.disturbed); n > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d runs were disturbed by other programs", n, len(g.results)))
	}
	return strings.Join(notes, "; ")
}

func (g group) count(is func(result) bool) (n int) {
	for _, r := range g.results {
		if is(r) {
			n++
		}
	}
	return n
}

func (g group) write(w io.Writer, columns []column, base []result) {
	_, _ = fmt.Fprintf(w, "%s\t%s\t%d", g.row, g.system, len(g.results))
	for _, c := range columns {
		if !c.filled(g.results) {
			_, _ = fmt.Fprint(w, "\t-")
			continue
		}
		values := make([]float64, 0, len(g.results))
		for _, r := range g.results {
			values = append(values, c.of(r))
		}
		s := spreadOf(values)
		_, _ = fmt.Fprintf(w, "\t"+c.form+" ["+c.form+".."+c.form+"]", s.median, s.least, s.most)
	}
	_, _ = fmt.Fprintf(w, "\t%s\n", g.note())
	if g.system == etcd || len(base) == 0 {
		return
	}
	_, _ = fmt.Fprint(w, "\t\t")
	for _, c := range columns {
		if !c.filled(g.results) || !c.filled(base) {
			_, _ = fmt.Fprint(w, "\t")
			continue
		}
		s := ratios(byRun(g.results, c.of), byRun(base, c.of))
		_, _ = fmt.Fprintf(w, "\t%.2fx [%.2f..%.2f]", s.median, s.least, s.most)
	}
	_, _ = fmt.Fprintln(w, "\t")
}
