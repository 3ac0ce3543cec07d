package bus_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	feedv1 "github.com/holdfastdb/holdfast/proto/holdfast/feed/v1"
	"github.com/holdfastdb/holdfast/services/bus"
)

// Within a process the very value is handed over; a value of another kind is an error, and no panic.
func TestDecodeGivesTheValueOrThePayload(t *testing.T) {
	t.Parallel()
	value := &feedv1.Message{ClusterId: 7}
	got, err := bus.Decode[feedv1.Message](bus.Message{Value: value})
	require.NoError(t, err)
	require.Same(t, value, got)
	_, err = bus.Decode[feedv1.Revision](bus.Message{Subject: "x", Value: value})
	require.ErrorContains(t, err, "was published on x")

	payload, err := value.MarshalVT()
	require.NoError(t, err)
	got, err = bus.Decode[feedv1.Message](bus.Message{Payload: payload})
	require.NoError(t, err)
	require.EqualValues(t, 7, got.GetClusterId())
	_, err = bus.Decode[feedv1.Message](bus.Message{Payload: []byte{0xff}})
	require.Error(t, err)
}
