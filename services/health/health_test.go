package health_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/services/failure"
	"github.com/holdfastdb/holdfast/services/health"
)

func TestAsked(t *testing.T) {
	rest, asked := health.Asked([]string{"health", "--name", "x"})
	require.True(t, asked)
	require.Equal(t, []string{"--name", "x"}, rest)
	for _, args := range [][]string{nil, {"--name", "health"}, {"healthy"}} {
		rest, asked := health.Asked(args)
		require.False(t, asked)
		require.Equal(t, args, rest)
	}
}

func TestOwn(t *testing.T) {
	code, asked := http.StatusOK, ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.Path
		w.WriteHeader(code)
		_, _ = w.Write([]byte("so it is\n"))
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	t.Setenv("http_proxy", "http://127.0.0.1:1") // not asked

	for _, host := range []string{"127.0.0.1", "0.0.0.0"} {
		var out bytes.Buffer
		require.NoError(t, health.Own(t.Context(), &out, "listen-metrics-urls", []string{host + ":" + at.Port()}))
		require.Equal(t, "so it is\n", out.String())
		require.Equal(t, "/health", asked)
	}
	code = http.StatusServiceUnavailable
	var out bytes.Buffer
	err = health.Own(t.Context(), &out, "listen-metrics-urls", []string{at.Host})
	require.ErrorContains(t, err, `503 Service Unavailable: so it is`)
	require.True(t, failure.Is(err, failure.Unavailable))
	require.Empty(t, out.String())
	server.Close()
	require.True(t, failure.Is(health.Own(t.Context(), &out, "listen-metrics-urls", []string{at.Host}), failure.Unavailable))
}

func TestNothingToAsk(t *testing.T) {
	err := health.Own(t.Context(), nil, "listen-metrics-urls", nil)
	require.EqualError(t, err, "--listen-metrics-urls is empty: the process would serve no /health to ask")
	require.True(t, failure.Is(err, failure.Config))
	for _, bad := range []string{"", "127.0.0.1:80", "https://127.0.0.1/", "http:///health", "://"} {
		require.True(t, failure.Is(health.Ask(t.Context(), nil, bad), failure.Config), bad)
	}
}
