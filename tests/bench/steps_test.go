package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fakeNodes are three members with one leader; each of the functions may be replaced.
type fakeNodes struct {
	mu      sync.Mutex
	leader  uint64
	applied map[string]uint64
	down    map[string]bool
	onKill  func(name string)
	onAsk   func(name string)
	onStart func(name string)
}

func newFakeNodes() *fakeNodes {
	return &fakeNodes{leader: 2, applied: map[string]uint64{}, down: map[string]bool{}}
}

func (f *fakeNodes) nodes() nodes {
	ids := map[string]uint64{"n1": 1, "n2": 2, "n3": 3}
	return nodes{
		names: nodeNames(),
		status: func(_ context.Context, name string) (*pb.StatusResponse, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.onAsk != nil {
				f.onAsk(name)
			}
			if f.down[name] {
				return nil, errors.New("refused")
			}
			return &pb.StatusResponse{
				Header: &pb.ResponseHeader{MemberId: ids[name]}, Leader: f.leader,
				RaftIndex: f.applied[name], RaftAppliedIndex: f.applied[name],
			}, nil
		},
		kill: func(_ context.Context, name string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.down[name] = true
			if f.onKill != nil {
				f.onKill(name)
			}
			return nil
		},
		start: func(_ context.Context, name string) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			delete(f.down, name)
			if f.onStart != nil {
				f.onStart(name)
			}
			return nil
		},
	}
}

func newStage(f *fakeNodes) *stage {
	return &stage{
		meter: &meter{}, nodes: f.nodes(), installed: func(string) int { return 0 },
		sample: func() (sample, error) { return sample{at: time.Now()}, nil },
	}
}

func TestLeaderIsTheOneThatAllFollow(t *testing.T) {
	f := newFakeNodes()
	n := f.nodes()
	got, err := n.agreed(t.Context(), n.names)
	require.NoError(t, err)
	require.Equal(t, "n2", got)
	_, err = n.agreed(t.Context(), n.but("n2"))
	require.ErrorContains(t, err, "none of [n1 n3] leads", "who is not asked is not believed")
	f.leader = 0
	_, err = n.agreed(t.Context(), n.names)
	require.ErrorContains(t, err, "leads")
	f.onAsk = func(name string) { f.leader = map[string]uint64{"n1": 1, "n2": 2, "n3": 2}[name] }
	_, err = n.agreed(t.Context(), n.names)
	require.ErrorContains(t, err, "do not agree")
	f.onAsk, f.down["n3"] = nil, true
	_, err = n.agreed(t.Context(), n.names)
	require.ErrorContains(t, err, "status of n3: refused")
}

func TestWaitsSayAtLastWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNodes()
		f.leader = 0
		began := time.Now()
		_, err := f.nodes().leader(t.Context(), nodeNames())
		require.ErrorContains(t, err, "waited 1m0s; at last: none of")
		require.InDelta(t, patience, time.Since(began), float64(time.Second))
	})
}

// The leader goes on by ten entries whenever it is asked: a member that follows closely is never quite as far.
func TestLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNodes()
		f.applied["n2"] = 1000
		f.onAsk = func(name string) {
			if name == "n2" {
				f.applied["n2"] += 10
			} else if f.applied["n1"] < 1030 {
				f.applied["n1"] += 515
			} else {
				f.applied["n1"] = f.applied["n2"] - 10
			}
		}
		require.NoError(t, f.nodes().level(t.Context(), "n1", "n2"))
		require.GreaterOrEqual(t, f.applied["n1"], uint64(1010))

		f.onAsk, f.applied["n1"] = nil, f.applied["n2"]-1
		require.ErrorContains(t, f.nodes().level(t.Context(), "n1", "n2"), "n1 has applied", "what stands still behind is not level")
	})
}

func TestPlaced(t *testing.T) {
	all := []string{"a", "b", "c"}
	endpoints, away := placed(atLeader, all, nodeNames(), "n2", true)
	require.Equal(t, []string{"b"}, endpoints)
	require.Empty(t, away)
	for i, leader := range nodeNames() {
		endpoints, away = placed(besideAMember, all, nodeNames(), leader, true)
		require.NotEqual(t, leader, away)
		require.Len(t, endpoints, 2)
		require.Contains(t, endpoints, all[i])
		require.NotContains(t, endpoints, all[slices.Index(nodeNames(), away)])
	}
	endpoints, away = placed(besideAMember, []string{"p1", "p2"}, nodeNames(), "n3", false)
	require.Equal(t, []string{"p1", "p2"}, endpoints, "proxies stay")
	require.Equal(t, "n1", away)
	endpoints, _ = placed(atLeader, []string{"p1", "p2"}, nodeNames(), "n3", false)
	require.Equal(t, []string{"p1", "p2"}, endpoints)
}

func TestGaps(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(1_000_000 + ms)) }
	var g gaps
	require.False(t, g.sentSince(at(0)))
	g.acknowledged(at(0), at(5))
	require.Zero(t, g.take(), "one write has no gap")
	g.acknowledged(at(6), at(10))
	g.acknowledged(at(11), at(900))
	g.acknowledged(at(901), at(905))
	require.Equal(t, 890*time.Millisecond, g.take())
	require.Zero(t, g.take(), "each gap is taken once")
	g.acknowledged(at(1200), at(1205))
	require.Equal(t, 300*time.Millisecond, g.take(), "it began before the take")
	require.True(t, g.sentSince(at(1200)))
	require.False(t, g.sentSince(at(1201)), "acknowledged later, but sent before")
}

// Writes stop for 1.5 s with each leader's end, and once more, for 2 s, before the window ends.
func TestFailovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNodes()
		st := newStage(f)
		var mu sync.Mutex
		var stops []time.Time // when the writes stop
		var killed []string
		f.onKill = func(name string) {
			killed = append(killed, name)
			mu.Lock()
			stops = append(stops, time.Now())
			mu.Unlock()
			f.leader = 0
			time.AfterFunc(1400*time.Millisecond, func() {
				f.mu.Lock()
				f.leader = map[string]uint64{"n1": 2, "n2": 3, "n3": 1}[name]
				f.mu.Unlock()
			})
		}
		f.onAsk = func(string) { f.applied = map[string]uint64{"n1": 9, "n2": 9, "n3": 9} }
		st.meter.gaps.acknowledged(time.Now(), time.Now())
		time.Sleep(time.Minute) // a gap before the first kill is none of the figure's
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				time.Sleep(time.Millisecond)
				mu.Lock()
				silent := false
				for _, stop := range stops {
					since := time.Since(stop)
					silent = silent || since < 1500*time.Millisecond || (since > 2*time.Second && since < 4*time.Second)
				}
				mu.Unlock()
				if !silent {
					st.meter.gaps.acknowledged(began, time.Now())
					st.meter.record(time.Since(began))
				}
			}
		})
		require.NoError(t, failovers(ctx, st))
		cancel()
		writer.Wait()
		require.Equal(t, []string{"n2", "n3", "n1", "n2", "n3"}, killed, "the leader, each time")
		require.Len(t, st.gaps, leaderKills)
		require.Len(t, st.spans, leaderKills)
		for _, gap := range st.gaps {
			require.InDelta(t, 2*time.Second, gap, float64(20*time.Millisecond))
		}
		require.Empty(t, f.down, "all run again")
	})
}

func TestFailoverWithoutANewLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeNodes()
		st := newStage(f)
		f.onKill = func(string) { f.leader = 0 }
		ctx, cancel := context.WithCancel(t.Context())
		var writer sync.WaitGroup
		writer.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				time.Sleep(time.Millisecond)
				st.meter.gaps.acknowledged(began, time.Now())
			}
		})
		st.meter.failed(errors.New("no leader"))
		err := failovers(ctx, st)
		cancel()
		writer.Wait()
		require.ErrorContains(t, err, "failover 1 of 5: waited 1m0s")
		require.ErrorContains(t, err, "the client's last error: no leader")
	})
}

func TestCatchUp(t *testing.T) {
	for _, tc := range []struct {
		name      string
		leader    uint64
		installed bool
		want      string
	}{
		{"by snapshot", 2, true, ""},
		{"by the log", 2, false, "n3 is level, but not by a snapshot"},
		{"the member leads", 3, true, "has become the leader"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeNodes()
				f.leader = tc.leader
				st := newStage(f)
				st.away = "n3"
				installs := 0
				st.installed = func(string) int {
					f.mu.Lock()
					defer f.mu.Unlock()
					return installs
				}
				f.applied = map[string]uint64{"n1": 50, "n2": 50, "n3": 50}
				f.onAsk = func(string) {
					if f.down["n3"] {
						f.applied["n2"] += 7
					}
				}
				missed := uint64(0)
				f.onStart = func(name string) {
					missed = f.applied["n2"] - f.applied[name]
					time.AfterFunc(2*time.Second, func() {
						f.mu.Lock()
						defer f.mu.Unlock()
						f.applied[name] = f.applied["n2"]
					})
					time.AfterFunc(2500*time.Millisecond, func() { // the line comes through a pipe
						f.mu.Lock()
						defer f.mu.Unlock()
						if tc.installed {
							installs++
						}
					})
				}
				err := catchUp(t.Context(), st)
				if tc.leader == 3 {
					require.ErrorContains(t, err, tc.want)
					require.Empty(t, st.spans)
					return
				}
				require.GreaterOrEqual(t, missed, uint64(missedEntries))
				require.Len(t, st.spans, 1)
				took := st.spans[0].after.at.Sub(st.spans[0].before.at)
				require.InDelta(t, 2*time.Second, took, float64(100*time.Millisecond), "from its start until it is level")
				if tc.want == "" {
					require.NoError(t, err)
				} else {
					require.ErrorContains(t, err, tc.want)
				}
			})
		})
	}
}

func TestStageMeasuresWhatIsBetween(t *testing.T) {
	st := newStage(newFakeNodes())
	for range 2 {
		st.meter.record(time.Hour)
		require.NoError(t, st.open())
		st.meter.record(time.Millisecond)
		require.NoError(t, st.shut())
	}
	st.meter.record(time.Hour)
	require.EqualValues(t, 2, st.meter.latencies.total)
	require.Less(t, st.meter.latencies.quantile(1), time.Second)
}

// An error of the load ends the steps early.
func TestLoadEndsTheSteps(t *testing.T) {
	broken := errors.New("broken")
	st := newStage(newFakeNodes())
	r := row{load: func(context.Context, *target, int, *meter) error { return broken }}
	r.steps = func(ctx context.Context, _ *stage) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	require.ErrorIs(t, st.run(t.Context(), r, nil), broken)
}

func TestFiguresOfSeveralSpans(t *testing.T) {
	at := func(seconds, cpu, load, busy float64, peak int64) sample {
		return sample{time.Unix(0, int64(seconds*1e9)), usage{cpuSeconds: cpu, peakBytes: peak}, usage{cpuSeconds: load}, 0, busy}
	}
	m := &meter{open: true}
	for range 600 {
		m.record(time.Millisecond)
	}
	got, err := figures(m, []span{
		{at(0, 1, 1, 1, 5e6), at(1, 1.5, 1.2, 1.6, 9e6)},
		{at(50, 20, 30, 40, 5e6), at(52, 21, 30.7, 41.2, 7e6)},
	})
	require.NoError(t, err)
	require.InDelta(t, 200, got.OpsPerS, 1e-6)
	require.InDelta(t, 3, got.Seconds, 1e-9)
	require.InDelta(t, 0.5, got.ServerCPU, 1e-9)
	require.InDelta(t, 0.3, got.LoadCPU, 1e-9)
	require.InDelta(t, 0.1, got.OthersCPU, 1e-9)
	require.InDelta(t, 9, got.RSSMB, 1e-9)
}

func TestCounter(t *testing.T) {
	var out bytes.Buffer
	c := newCounter(&out, "applied snapshot")
	for _, line := range []string{"n1 | x applied snapshot y\n", "n2 | applied\n", "applied snapshot\n", "n1 | applied snapshot\n"} {
		_, err := c.Write([]byte(line))
		require.NoError(t, err)
	}
	require.Equal(t, 2, c.of("n1"))
	require.Zero(t, c.of("n2"))
	require.Contains(t, out.String(), "n2 | applied\n")
}

func TestGapFigures(t *testing.T) {
	longest, median := gapFigures([]time.Duration{2 * time.Second, time.Second, 1200 * time.Millisecond})
	require.InDelta(t, 2000, longest, 1e-9)
	require.InDelta(t, 1200, median, 1e-9)
	longest, median = gapFigures(nil)
	require.Zero(t, longest+median)
}
