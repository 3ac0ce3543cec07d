package telemetry

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProfilesAreServedOnlyIfAskedFor(t *testing.T) {
	t.Parallel()
	next := http.NewServeMux()
	next.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	for _, enabled := range []bool{false, true} {
		handler := WithProfiles(enabled, next)
		for path, want := range map[string]int{"/health": http.StatusOK, "/debug/pprof/goroutine": http.StatusNotFound, "/else": http.StatusNotFound} {
			if enabled && path == "/debug/pprof/goroutine" {
				want = http.StatusOK
			}
			got := httptest.NewRecorder()
			handler.ServeHTTP(got, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
			require.Equal(t, want, got.Code, path)
		}
	}
}
