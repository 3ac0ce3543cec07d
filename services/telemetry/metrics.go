package telemetry

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/holdfastdb/holdfast/services/version"
)

// NewRegistry makes the metrics of a process: the Go runtime's, the process's, and holdfast_build_info with the labels
// version, component and goversion and the value 1. Services register theirs on it.
func NewRegistry(component string) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "holdfast_build_info",
		Help: "What this process is: its version, component and Go version. Always 1.",
		ConstLabels: prometheus.Labels{
			"version": version.Holdfast, "component": component, "goversion": runtime.Version(),
		},
	})
	build.Set(1)
	registry.MustRegister(build, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// MetricsHandler serves the registry at /metrics.
func MetricsHandler(registry *prometheus.Registry) http.Handler {
	return promhttp.InstrumentMetricHandler(registry, promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
}
