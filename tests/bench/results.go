package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// result is one measurement and one line of the results file.
type result struct {
	Row     string  `json:"row"`
	System  string  `json:"system"`
	Run     int     `json:"run"` // from 1
	OpsPerS float64 `json:"ops_per_s"`
	P50Ms   float64 `json:"p50_ms"`
	P99Ms   float64 `json:"p99_ms"`
	// CommitP99Ms is the p99 of the operations during which a node's database was written.
	CommitP99Ms float64 `json:"commit_p99_ms,omitempty"`
	// EndpointP50Ms and EndpointP99Ms are the p50 and p99 at each endpoint, where the load tells.
	EndpointP50Ms []float64 `json:"endpoint_p50_ms,omitempty"`
	EndpointP99Ms []float64 `json:"endpoint_p99_ms,omitempty"`
	CPUUsPerOp    float64   `json:"cpu_us_per_op"` // all processes of the system
	RSSMB         float64   `json:"rss_mb"`        // the sum of their peaks
	// ServerCPU and LoadCPU are the share of one processor that the system and the load took.
	ServerCPU float64 `json:"server_cpu"`
	LoadCPU   float64 `json:"load_cpu"`
	// OthersCPU is the share of the servers' processor that anyone else took meanwhile.
	OthersCPU float64 `json:"others_cpu"`
	// GapMs is the longest time between two acknowledged writes around any failover of the run, and GapMedianMs the median of
	// the failovers' longest; rows without failovers have none.
	GapMs       float64 `json:"gap_ms,omitempty"`
	GapMedianMs float64 `json:"gap_median_ms,omitempty"`
	// QuietP99Ms is the p99 of the same load before an operator's work, and XQuiet how many times that the p99 became.
	QuietP99Ms float64 `json:"quiet_p99_ms,omitempty"`
	XQuiet     float64 `json:"x_quiet,omitempty"`
	// BytesEach is by how much the peaks of all processes grew for each thing that the load made and left.
	BytesEach float64 `json:"bytes_each,omitempty"`
	// LoadedMB is what all processes held when the data was loaded, StartMs the time from the start of a node that was killed to its
	// first answer, and StartedMB its peak until then.
	LoadedMB  float64 `json:"loaded_mb,omitempty"`
	StartMs   float64 `json:"start_ms,omitempty"`
	StartedMB float64 `json:"started_mb,omitempty"`
	// NodesUsPerOp is CPUUsPerOp of the consensus nodes alone, where others have processes of their own.
	NodesUsPerOp float64   `json:"nodes_cpu_us_per_op,omitempty"`
	Connections  int       `json:"connections"`
	Seconds      float64   `json:"seconds"`
	Time         time.Time `json:"time"`
}

// loadLimit is the share of its processor from which on the load counts as the limit.
const loadLimit = 0.9

// loadLimited says that throughput and latency are those of the load, not of the system.
func (r result) loadLimited() bool { return r.LoadCPU >= loadLimit }

// othersLimit is the share of the servers' processor from which on others disturb a run: throughput and latency suffer, and
// processor time per operation too, since batches become smaller and caches colder.
const othersLimit = 0.1

// disturbed says that the machine was not the comparison's own.
func (r result) disturbed() bool { return r.OthersCPU >= othersLimit }

// upkeepFigures takes what only some rows have.
func (r *result) upkeepFigures(st *stage) {
	if st.quietP99 > 0 {
		r.QuietP99Ms = milliseconds(st.quietP99)
		r.XQuiet = r.P99Ms / r.QuietP99Ms
	}
	r.BytesEach = st.bytesEach
	if st.restarted.start > 0 {
		r.LoadedMB, r.StartedMB = float64(st.restarted.loadedBytes)/1e6, float64(st.restarted.peakBytes)/1e6
		r.StartMs = milliseconds(st.restarted.start)
	}
}

func (r result) writeLine(w io.Writer) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

func (r result) String() string {
	line := fmt.Sprintf("%-24s %-10s run %d: %9.0f ops/s  p50 %7.2f ms  p99 %7.2f ms  cpu %6.1f us/op  rss %6.0f MB  server cpu %3.0f%%  load cpu %3.0f%%  others %3.0f%%",
		r.Row, r.System, r.Run, r.OpsPerS, r.P50Ms, r.P99Ms, r.CPUUsPerOp, r.RSSMB, 100*r.ServerCPU, 100*r.LoadCPU, 100*r.OthersCPU)
	if r.GapMs > 0 {
		line += fmt.Sprintf("  gap %.0f ms (median %.0f ms)", r.GapMs, r.GapMedianMs)
	}
	if r.QuietP99Ms > 0 {
		line += fmt.Sprintf("  quiet p99 %.2f ms (x %.2f)", r.QuietP99Ms, r.XQuiet)
	}
	if r.BytesEach > 0 {
		line += fmt.Sprintf("  %.0f bytes each", r.BytesEach)
	}
	if r.StartMs > 0 {
		line += fmt.Sprintf("  loaded %.0f MB, started in %.0f ms with %.0f MB", r.LoadedMB, r.StartMs, r.StartedMB)
	}
	if r.loadLimited() {
		line += "  THE LOAD WAS THE LIMIT"
	}
	return line
}
