package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/tests/framework"
)

// The lease-services are not woken by puts: while keys are written, the bus brings them a heartbeat now and then, and nothing for each put.
func TestLeaseServicesSleepDuringPuts(t *testing.T) {
	c := framework.Split(t, framework.Options{})
	client := c.Client(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := client.Grant(ctx, 600)
	require.NoError(t, err)
	const puts = 2000
	services := []string{"lease1", "lease2"}
	before, began := delivered(ctx, t, c), time.Now()
	for range puts {
		_, err := client.Put(ctx, "k", "v")
		require.NoError(t, err)
	}
	after, took := delivered(ctx, t, c), time.Since(began)
	// One heartbeat at least each 100 ms, at most each 50; the change of a leader brings some more.
	most := int64(took/(50*time.Millisecond)) + 20
	require.Less(t, most, int64(puts/2), "the puts took too long to tell")
	for _, name := range services {
		require.Positive(t, before[name], "it is subscribed")
		require.LessOrEqual(t, after[name]-before[name], most, "%s in %v", name, took)
	}
}

// delivered is how many messages the bus has given to each process.
func delivered(ctx context.Context, t *testing.T, c *framework.Cluster) map[string]int64 {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/connz", c.Ports["nats"].Metrics), nil)
	require.NoError(t, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	var listed struct {
		Connections []struct {
			Name    string `json:"name"`
			OutMsgs int64  `json:"out_msgs"`
		} `json:"connections"`
	}
	require.NoError(t, json.NewDecoder(response.Body).Decode(&listed))
	messages := map[string]int64{}
	for _, connection := range listed.Connections {
		messages[connection.Name] += connection.OutMsgs
	}
	return messages
}
