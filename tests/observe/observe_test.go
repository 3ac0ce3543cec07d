// Package observe holds that what operators read is there: the metrics that etcd's dashboards and alert rules rest on, with etcd's
// meaning, and every metric that a dashboard or a rule of ours names. A real etcd tells what is right.
package observe

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func TestMain(m *testing.M) {
	os.Exit(framework.Main(m, append(framework.SplitPrograms(), "holdfast", "etcd")...))
}

// metrics are what processes show: of each name the series, a histogram's value being its count.
type metrics map[string][]series

type series struct {
	labels map[string]string
	value  float64
}

// scrape reads the metrics of processes, by their URLs, as if they were one.
func scrape(t *testing.T, urls ...string) metrics {
	t.Helper()
	all := metrics{}
	for _, url := range urls {
		code, body := framework.Get(t, url+"/metrics")
		require.Equal(t, 200, code)
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		require.NoError(t, err)
		for name, family := range families {
			for _, m := range family.GetMetric() {
				all[name] = append(all[name], seriesOf(m))
			}
		}
	}
	return all
}

func seriesOf(m *dto.Metric) series {
	s := series{labels: map[string]string{}}
	for _, label := range m.GetLabel() {
		s.labels[label.GetName()] = label.GetValue()
	}
	s.value = m.GetGauge().GetValue() + m.GetCounter().GetValue() + m.GetUntyped().GetValue() +
		float64(m.GetHistogram().GetSampleCount()) + float64(m.GetSummary().GetSampleCount())
	return s
}

// sum adds the series that have the given labels, name and value in turn.
func (m metrics) sum(name string, labels ...string) float64 {
	total := 0.0
	for _, s := range m[name] {
		if s.has(labels) {
			total += s.value
		}
	}
	return total
}

func (s series) has(labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		if s.labels[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// by adds the series of a name by the values of the given labels; what is 0 is left out, since a series may be shown only from when it
// is first counted.
func (m metrics) by(name string, labels ...string) map[string]float64 {
	sums := map[string]float64{}
	for _, s := range m[name] {
		var key []string
		for _, label := range labels {
			key = append(key, s.labels[label])
		}
		sums[strings.Join(key, " ")] += s.value
	}
	maps.DeleteFunc(sums, func(_ string, value float64) bool { return value == 0 })
	return sums
}

// since gives how much each series has grown.
func (m metrics) since(before metrics) metrics {
	grown := metrics{}
	for name, list := range m {
		for _, s := range list {
			old := 0.0
			for _, b := range before[name] {
				if maps.Equal(b.labels, s.labels) {
					old = b.value
				}
			}
			grown[name] = append(grown[name], series{labels: s.labels, value: s.value - old})
		}
	}
	return grown
}

func localURL(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }

// system is one that is looked at: where its members and its edges show their metrics, which may be the same processes.
type system struct {
	*framework.Cluster
	members map[string]string
	edges   []string
}

// observed gives the URLs of a cluster's metrics.
func observed(c *framework.Cluster) system {
	s := system{Cluster: c, members: map[string]string{}}
	for name, ports := range c.Ports {
		switch {
		case !slices.Contains(c.Processes(), name):
		case strings.HasPrefix(name, "n") && ports.Admin != 0:
			s.members[name] = localURL(ports.Metrics)
		case strings.HasPrefix(name, "proxy"):
			s.edges = append(s.edges, localURL(ports.Metrics))
		}
	}
	if len(s.members) > 0 {
		return s
	}
	for _, name := range c.Processes() {
		s.members[name] = c.ClientURL(name)
		s.edges = append(s.edges, c.ClientURL(name))
	}
	return s
}

// leader is the name of the member that leads.
func (s system) leader(t *testing.T) string {
	t.Helper()
	var leader string
	require.Eventually(t, func() bool {
		for _, name := range s.Running() {
			if url := s.members[name]; url != "" && scrape(t, url).sum("etcd_server_is_leader") == 1 {
				leader = name
				return true
			}
		}
		return false
	}, patience, pause, "nobody leads")
	return leader
}
