package egress_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	watchv1 "github.com/holdfastdb/holdfast/proto/holdfast/watch/v1"
	"github.com/holdfastdb/holdfast/watch-hub/internal/egress"
)

func limits() egress.Limits {
	return egress.Limits{QueueBytes: 100, ResponseBytes: 50, ResponseEntries: 10}
}

func delivery(from, to int64) *watchv1.Delivery { return &watchv1.Delivery{From: from, To: to} }

// A mark is sent with, or after, what was put in before it, and marks of an idle time become one.
func TestMarksFollowDeliveries(t *testing.T) {
	q := egress.New(limits())
	q.Start(10)
	require.False(t, q.Arm(), "an empty queue needs nobody")
	for position := int64(11); position < 15; position++ {
		q.Mark(position)
	}
	require.True(t, q.Arm())
	require.False(t, q.Arm())
	r, _ := q.Take()
	require.EqualValues(t, 10, r.GetLiveFrom())
	require.EqualValues(t, 14, r.GetLiveTo())
	require.True(t, q.Deliver(delivery(14, 15), true, 30))
	q.Mark(15)
	require.True(t, q.Deliver(delivery(15, 16), true, 30))
	q.Mark(16)
	r, _ = q.Take()
	require.Len(t, r.GetDeliveries(), 1)
	require.EqualValues(t, 15, r.GetLiveTo())
	r, _ = q.Take()
	require.Len(t, r.GetDeliveries(), 1)
	require.EqualValues(t, 16, r.GetLiveTo())
	r, _ = q.Take()
	require.Nil(t, r)
	require.EqualValues(t, 16, q.Sent())
}

// The receiver takes deliveries before joinings, so one that follows a joining in a response begins where that one stood.
func TestDeliveryReachesDownToWhereItsReceiversStand(t *testing.T) {
	q := egress.New(limits())
	q.Start(10)
	require.True(t, q.Deliver(delivery(12, 13), true, 1))
	q.Join(7, 4)
	require.True(t, q.Deliver(delivery(13, 14), true, 1))
	require.True(t, q.Deliver(delivery(2, 14), false, 1))
	r, _ := q.Take()
	require.EqualValues(t, 10, r.GetDeliveries()[0].GetFrom())
	require.EqualValues(t, 4, r.GetDeliveries()[1].GetFrom())
	require.EqualValues(t, 2, r.GetDeliveries()[2].GetFrom())
	require.Equal(t, []uint64{7}, r.GetJoined())
}

func TestBoundAndRelief(t *testing.T) {
	q := egress.New(limits())
	for q.Deliver(delivery(0, 1), false, 30) {
		require.LessOrEqual(t, q.Bytes(), 130)
	}
	require.Equal(t, 120, q.Bytes())
	require.True(t, q.Lagging())
	q.End(&watchv1.Ended{Id: 1})
	relieved := 0
	for {
		r, now := q.Take()
		if r == nil {
			break
		}
		if now {
			relieved++
			require.False(t, q.Lagging())
		}
	}
	require.Equal(t, 1, relieved, "told once")
	q.Leave()
	r, _ := q.Take()
	require.True(t, r.GetLeaving())
}
