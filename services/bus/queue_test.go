package bus

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQueueIsBounded(t *testing.T) {
	byCount := newQueue(2, 1<<20)
	require.NoError(t, byCount.put(Message{Subject: "1"}))
	require.NoError(t, byCount.put(Message{Subject: "2"}))
	require.ErrorIs(t, byCount.put(Message{Subject: "3"}), ErrFull)
	byCount.gap(SlowConsumer)
	byCount.gap(SlowConsumer)
	gaps, messages, ok := byCount.take()
	require.True(t, ok)
	require.Equal(t, []Cause{SlowConsumer}, gaps, "a cause is told once")
	require.Equal(t, []Message{{Subject: "1"}, {Subject: "2"}}, messages)
	require.NoError(t, byCount.put(Message{Subject: "4"}), "what was taken counts no more")

	byBytes := newQueue(100, 2*size(1000))
	large := Message{Payload: make([]byte, 1000)}
	require.NoError(t, byBytes.put(large))
	require.NoError(t, byBytes.put(large))
	require.ErrorIs(t, byBytes.put(Message{}), ErrFull)
}

func TestQueueClose(t *testing.T) {
	q := newQueue(10, 1<<20)
	require.NoError(t, q.put(Message{Subject: "1"}))
	q.close(false)
	require.ErrorIs(t, q.put(Message{}), ErrClosed)
	_, messages, ok := q.take()
	require.True(t, ok)
	require.Len(t, messages, 1, "what was queued can be taken")
	_, _, ok = q.take()
	require.False(t, ok)

	q = newQueue(10, 1<<20)
	require.NoError(t, q.put(Message{}))
	q.close(true)
	_, _, ok = q.take()
	require.False(t, ok)
}
