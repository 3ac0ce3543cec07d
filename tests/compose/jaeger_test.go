package compose

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// traceTimeout bounds the way of a span to Jaeger's answers: batches in the service and in Jaeger, and a slow machine.
const traceTimeout = 60 * time.Second

// jaegerTrace is a trace as Jaeger's query API tells it.
type jaegerTrace struct {
	TraceID string `json:"traceID"`
	Spans   []struct {
		ID         string `json:"spanID"`
		Name       string `json:"operationName"`
		Process    string `json:"processID"`
		References []struct {
			Kind string `json:"refType"`
			Span string `json:"spanID"`
		} `json:"references"`
	} `json:"spans"`
	Processes map[string]struct {
		Service string `json:"serviceName"`
	} `json:"processes"`
}

// services are those that have spans in the trace, each once.
func (j *jaegerTrace) services() []string {
	var names []string
	for _, s := range j.Spans {
		names = append(names, j.Processes[s.Process].Service)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (j *jaegerTrace) String() string {
	var out strings.Builder
	for _, s := range j.Spans {
		fmt.Fprintf(&out, "%s: %s [%s] %v\n", j.Processes[s.Process].Service, s.Name, s.ID, s.References)
	}
	return out.String()
}

// traces asks Jaeger for the newest traces in which the service has an operation.
func (e *engine) traces(ctx context.Context, service, operation string) ([]jaegerTrace, error) {
	query := url.Values{"service": {service}, "operation": {operation}, "limit": {"100"}, "lookback": {"1h"}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.address("HOLDFAST_JAEGER_PORT")+"/api/traces?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		return nil, fmt.Errorf("jaeger answers %s: %s", response.Status, body)
	}
	var answer struct {
		Data []jaegerTrace `json:"data"`
	}
	return answer.Data, json.NewDecoder(response.Body).Decode(&answer)
}

// traced waits until Jaeger tells of a trace that begins in the service with the operation, and has spans of all the services.
func (e *engine) traced(t *testing.T, service, operation string, services ...string) {
	t.Helper()
	slices.Sort(services)
	ctx, cancel := context.WithTimeout(t.Context(), traceTimeout)
	defer cancel()
	var last string
	for {
		traces, err := e.traces(ctx, service, operation)
		last = fmt.Sprint(len(traces), " traces, ", err)
		for _, trace := range traces {
			last = trace.String()
			if slices.Equal(trace.services(), services) {
				t.Logf("%s of %s in Jaeger:\n%s", operation, service, &trace)
				return
			}
		}
		select {
		case <-ctx.Done():
			require.Fail(t, "no whole trace", "%s of %s through %v; the last of them: %s", operation, service, services, last)
		case <-time.After(pollPause):
		}
	}
}

// leaveTraces makes each kind of request once: a write with a watcher, a read, a keepalive, and a lease that expires under a watched
// key.
func leaveTraces(t *testing.T, client *clientv3.Client) {
	t.Helper()
	const key = "traced"
	ctx, cancel := context.WithTimeout(t.Context(), traceTimeout)
	defer cancel()
	watch := client.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithCreatedNotify())
	first, ok := <-watch
	require.True(t, ok && first.Created, "%v", first.Err())
	lease, err := client.Grant(ctx, 2)
	require.NoError(t, err)
	_, err = client.KeepAliveOnce(ctx, lease.ID)
	require.NoError(t, err)
	_, err = client.Put(ctx, key, "v", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	_, err = client.Get(ctx, key)
	require.NoError(t, err)
	for r := range watch {
		require.NoError(t, r.Err())
		for _, event := range r.Events {
			if event.Type == clientv3.EventTypeDelete {
				return // the lease has expired
			}
		}
	}
	require.Fail(t, "the watch ended before the lease did", "%v", ctx.Err())
}
