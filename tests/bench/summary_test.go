package main

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

func TestSpread(t *testing.T) {
	require.Equal(t, spread{2, 1, 9}, spreadOf([]float64{9, 1, 2}))
	require.Equal(t, spread{3, 1, 9}, spreadOf([]float64{9, 1, 2, 4}))
	require.Equal(t, spread{5, 5, 5}, spreadOf([]float64{5}))
	values := []float64{3, 1, 2}
	spreadOf(values)
	require.Equal(t, []float64{3, 1, 2}, values, "the caller's order stays")
}

func TestRatios(t *testing.T) {
	// The medians are 50 and 100; run by run the machine grew slower for both.
	got := ratios(map[int]float64{1: 40, 2: 50, 3: 90}, map[int]float64{1: 100, 2: 80, 3: 200})
	require.Equal(t, spread{0.5, 0.4, 0.625}, got)
	got = ratios(map[int]float64{1: 40, 2: 60}, map[int]float64{1: 100})
	require.Equal(t, spread{0.5, 0.4, 0.4}, got, "run 2 has no partner")
	require.True(t, math.IsNaN(ratios(map[int]float64{1: 40}, nil).median))
}

func TestHistogram(t *testing.T) {
	var h histogram
	require.Zero(t, h.quantile(0.5))
	random := rand.New(rand.NewPCG(1, 1))
	var all []time.Duration
	for range 10_000 {
		d := time.Duration(math.Exp(random.Float64() * 23)) // from 1 ns to 10 s
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 1} {
		exact, got := all[int(q*10_000)-1], h.quantile(q)
		require.GreaterOrEqual(t, got, exact)
		require.LessOrEqual(t, float64(got), float64(exact)*(1+1.0/subBuckets), "quantile %v", q)
	}
}

func TestHistogramBucketsMeet(t *testing.T) {
	for bucket := range len(histogram{}.counts) - 1 {
		top := topOf(bucket)
		require.Equal(t, bucket, bucketOf(top))
		require.Equal(t, bucket+1, bucketOf(top+1))
	}
	var h histogram
	h.add(-1)
	require.Zero(t, h.quantile(1), "a clock that stood still")
	h.add(math.MaxInt64)
	require.Equal(t, time.Duration(math.MaxInt64), h.quantile(1))
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	writeTable(&out, nil)
	require.Empty(t, out.String())
	writeTable(&out, []result{
		{Row: "put-1000", System: etcd, Run: 1, CPUUsPerOp: 100, OpsPerS: 1000, P50Ms: 2, P99Ms: 4, RSSMB: 50, LoadCPU: 0.2, ServerCPU: 1},
		{Row: "put-1000", System: split, Run: 1, CPUUsPerOp: 40, OpsPerS: 2500, P50Ms: 1, P99Ms: 1, RSSMB: 100, LoadCPU: 0.99, ServerCPU: 0.8},
		{Row: "put-1000", System: etcd, Run: 2, CPUUsPerOp: 120, OpsPerS: 900, P50Ms: 2, P99Ms: 4, RSSMB: 50, LoadCPU: 0.2, ServerCPU: 1, OthersCPU: 0.3},
	})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Regexp(t, `^put-1000 +etcd +2 +110\.0 \[100\.0\.\.120\.0\] +950 \[900\.\.1000\].* 1 of 2 runs were disturbed by other programs$`, lines[1])
	require.Regexp(t, `^put-1000 +split +1 +40\.0 .* the load was the limit in 1 of 1 runs$`, lines[2])
	require.Regexp(t, `^ +0\.36x \[0\.40\.\.0\.40\] +2\.63x \[2\.50\.\.2\.50\] +0\.50x .* +0\.25x .* +2\.00x`, lines[3])
}

func TestFigures(t *testing.T) {
	m := &meter{}
	m.record(time.Hour) // before it is open
	before := sample{at: time.Unix(100, 0), servers: usage{cpuSeconds: 7}, load: usage{cpuSeconds: 3}, busySeconds: 50}
	after := sample{at: time.Unix(102, 0), servers: usage{cpuSeconds: 8, peakBytes: 3e6}, load: usage{cpuSeconds: 3.5}, busySeconds: 51.4}
	_, err := figures(m, []span{{before, after}})
	require.ErrorContains(t, err, "nothing completed")
	m.setOpen(true)
	for range 1000 {
		m.record(time.Millisecond)
	}
	m.setOpen(false)
	m.record(time.Hour)
	got, err := figures(m, []span{{before, after}})
	require.NoError(t, err)
	require.InDelta(t, 500, got.OpsPerS, 1e-9)
	require.InDelta(t, 1000, got.CPUUsPerOp, 1e-9)
	require.InDelta(t, 1, got.P99Ms, 0.02)
	require.InDelta(t, 0.5, got.ServerCPU, 1e-9)
	require.InDelta(t, 0.25, got.LoadCPU, 1e-9)
	require.InDelta(t, 0.2, got.OthersCPU, 1e-9)
	require.True(t, got.disturbed())
	require.InDelta(t, 3, got.RSSMB, 1e-9)
}

func TestRows(t *testing.T) {
	names := map[string]bool{}
	for _, r := range rows() {
		require.False(t, names[r.name], r.name)
		names[r.name] = true
	}
	chosen := chooseRows(regexp.MustCompile("^(?:put-1)$"))
	require.Len(t, chosen, 1, "a whole name")
	require.Equal(t, []string{etcd, standalone, split}, chosen[0].systems(systemNames()))
	require.Equal(t, []string{etcd, split}, chosen[0].systems([]string{split, etcd}))
	one := chooseRows(regexp.MustCompile("^(?:put-1-one)$"))
	require.Equal(t, []string{etcd, standalone}, one[0].systems(systemNames()), "split has three nodes")
	_, err := parse([]string{"-systems", "etcd,other"}, &bytes.Buffer{})
	require.ErrorContains(t, err, `unknown system "other"`)
	_, err = parse([]string{"-runs", "0"}, &bytes.Buffer{})
	require.Error(t, err)
}

func TestKeysAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for n := range keys {
		key := string(keyAt(n))
		require.Len(t, key, 16)
		require.False(t, seen[key])
		seen[key] = true
	}
}

// A system that has too many requests is asked again, any other error is the operation's.
func TestPatientOperation(t *testing.T) {
	answers := []error{rpctypes.ErrGRPCRequestTooManyRequests, rpctypes.ErrGRPCRequestTooManyRequests, nil, rpctypes.ErrGRPCNoSpace}
	operation := patient(func(*grpc.ClientConn, *rand.Rand) call {
		return func(context.Context) error {
			err := answers[0]
			answers = answers[1:]
			return err
		}
	})(nil, nil)
	require.NoError(t, operation(t.Context()))
	require.Len(t, answers, 1)
	require.ErrorIs(t, operation(t.Context()), rpctypes.ErrGRPCNoSpace)
}
