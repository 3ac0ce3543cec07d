package telemetry

import (
	"net/http"
	"net/http/pprof"
)

// WithProfiles serves the Go runtime's profiles under /debug/pprof/ beside what next serves, as etcd's --enable-pprof does; unless
// enabled, it is next alone. Profiles tell what the process holds in memory: whoever may fetch them is trusted.
func WithProfiles(enabled bool, next http.Handler) http.Handler {
	if !enabled {
		return next
	}
	mux := http.NewServeMux()
	mux.Handle("/", next)
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
