package contract

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	leasev1 "github.com/holdfastdb/holdfast/proto/holdfast/lease/v1"
	"github.com/holdfastdb/holdfast/services/credit"
)

func keeperSuites() map[string]suite {
	return map[string]suite{
		"renewed": renewedSuite, "not found": notFoundSuite, "many": manySuite, "credit": keeperCreditSuite,
		"stop and revoke": stopSuite, "remaining": remainingSuite,
	}
}

// What an instance may say to a keepalive.
const (
	renewed     = leasev1.Outcome_OUTCOME_RENEWED
	notFound    = leasev1.Outcome_OUTCOME_NOT_FOUND
	unavailable = leasev1.Outcome_OUTCOME_UNAVAILABLE
)

// ttlS is what leases are granted for: longer than any test lasts.
const ttlS = 600

// missing is an id that no lease has: granted ones are positive and chosen by the node at random.
const missing = 4711

// grant grants leases in one batch.
func (c *caller) grant(count int) []int64 {
	c.t.Helper()
	calls := make([]*consensusv1.Call, count)
	for i := range calls {
		calls[i] = call(c.t, consensusv1.Method_METHOD_LEASE_GRANT, &pb.LeaseGrantRequest{TTL: ttlS})
	}
	ids := make([]int64, count)
	for i, answer := range c.do(calls...) {
		ids[i] = read[pb.LeaseGrantResponse](c.t, answer).GetID()
		require.Positive(c.t, ids[i])
	}
	return ids
}

// keepAlives is a proxy's stream to an instance.
type keepAlives struct {
	t      *testing.T
	stream leasev1.Keeper_KeepAlivesClient
	id     uint64
	sent   uint64 // batches with keepalives
	taken  uint64
	epoch  uint64 // of the latest stop
}

func newKeepAlives(t *testing.T, conn grpc.ClientConnInterface) *keepAlives {
	t.Helper()
	stream, err := leasev1.NewKeeperClient(conn).KeepAlives(bounded(t))
	require.NoError(t, err)
	return &keepAlives{t: t, stream: stream}
}

// send sends one batch and gives the id of its first keepalive.
func (k *keepAlives) send(leases ...int64) (first uint64) {
	k.t.Helper()
	keepAlives := make([]*leasev1.KeepAlive, len(leases))
	for i, lease := range leases {
		keepAlives[i] = &leasev1.KeepAlive{Lease: lease}
	}
	return k.sendAll(keepAlives...)
}

func (k *keepAlives) sendAll(keepAlives ...*leasev1.KeepAlive) (first uint64) {
	k.t.Helper()
	batch := &leasev1.KeepAliveBatch{Taken: k.taken, KeepAlives: keepAlives}
	first = k.id + 1
	for _, keepAlive := range keepAlives {
		k.id++
		keepAlive.Id = k.id
	}
	k.sent++
	require.NoError(k.t, k.stream.Send(batch))
	return first
}

// next is the next message; it says nothing of having been taken.
func (k *keepAlives) next() *leasev1.KeepAliveAnswers {
	k.t.Helper()
	message, err := k.stream.Recv()
	require.NoError(k.t, err)
	require.LessOrEqual(k.t, message.GetTaken(), k.sent)
	if len(message.GetAnswers()) > 0 {
		k.taken++
	}
	return message
}

func (k *keepAlives) mark() {
	k.t.Helper()
	require.NoError(k.t, k.stream.Send(&leasev1.KeepAliveBatch{Taken: k.taken}))
}

// collect takes messages until count answers to the keepalives from first on are there, in the order of the questions.
func (k *keepAlives) collect(first uint64, count int) []*leasev1.KeepAliveAnswer {
	k.t.Helper()
	answers := make([]*leasev1.KeepAliveAnswer, count)
	for missing := count; missing > 0; {
		message := k.next()
		for _, answer := range message.GetAnswers() {
			require.Nil(k.t, answers[answer.GetId()-first], "answered twice")
			answers[answer.GetId()-first] = answer
			missing--
		}
		if len(message.GetAnswers()) > 0 {
			k.mark()
		}
	}
	return answers
}

// ask sends keepalives and gives the answers.
func (k *keepAlives) ask(leases ...int64) []*leasev1.KeepAliveAnswer {
	k.t.Helper()
	return k.collect(k.send(leases...), len(leases))
}

// settle asks until nothing is said to be asked again: an instance whose heartbeat is late may not acknowledge for a moment.
func (k *keepAlives) settle(leases ...int64) []*leasev1.KeepAliveAnswer {
	k.t.Helper()
	for { // bounded by the stream's deadline
		answers := k.ask(leases...)
		if !slices.ContainsFunc(answers, func(a *leasev1.KeepAliveAnswer) bool { return a.GetOutcome() == unavailable }) {
			return answers
		}
	}
}

func (k *keepAlives) renew(leases ...int64) {
	k.t.Helper()
	for _, answer := range k.settle(leases...) {
		require.Equal(k.t, renewed, answer.GetOutcome())
		require.EqualValues(k.t, ttlS, answer.GetTtlS())
		require.Positive(k.t, answer.GetRevision())
	}
}

// A lease is renewed as soon as it is granted, whether the instance has heard of it or not, and as often as one likes.
func renewedSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, k := newCaller(t, conn), newKeepAlives(t, conn)
	lease := c.grant(1)[0]
	for range 3 {
		k.renew(lease)
	}
	k.renew(lease, lease)
}

func notFoundSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	k := newKeepAlives(t, conn)
	answer := k.settle(missing)[0]
	require.Equal(t, notFound, answer.GetOutcome())
	require.Zero(t, answer.GetTtlS())
}

// Each keepalive of a large batch gets one answer, its own.
func manySuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	const count = 500
	c, k := newCaller(t, conn), newKeepAlives(t, conn)
	var batch []int64
	for _, lease := range c.grant(count) {
		batch = append(batch, lease, missing)
	}
	for i, answer := range k.settle(batch...) {
		require.Equal(t, []leasev1.Outcome{renewed, notFound}[i%2], answer.GetOutcome())
	}
}

// Past the window of answers that were not marked as taken nothing arrives but marks. Then everything does.
func keeperCreditSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, k := newCaller(t, conn), newKeepAlives(t, conn)
	lease := c.grant(1)[0]
	k.renew(lease) // from here on it is known and answered at once
	before := k.taken
	silent := func() { // sends a keepalive without the mark
		k.id++
		k.sent++
		require.NoError(t, k.stream.Send(&leasev1.KeepAliveBatch{Taken: before, KeepAlives: []*leasev1.KeepAlive{{Id: k.id, Lease: lease}}}))
	}
	for k.taken < before+credit.Window {
		silent()
		for was := k.taken; k.taken == was; {
			k.next()
		}
	}
	first := k.id + 1
	const waiting = 3 * credit.Window
	for range waiting / credit.Window {
		for range credit.Window {
			silent()
		}
		// A window of batches is acknowledged without credit, and behind whatever was sent before.
		for taken := uint64(0); taken < k.sent; {
			message := k.next()
			require.Empty(t, message.GetAnswers(), "answers without credit")
			taken = message.GetTaken()
		}
	}
	k.mark()
	k.collect(first, waiting)
}

// tell tells of a client's revoke until the instance may answer.
func (k *keepAlives) tell(ask leasev1.Ask, lease int64, ticket uint64) leasev1.Outcome {
	k.t.Helper()
	for { // bounded by the stream's deadline
		first := k.sendAll(&leasev1.KeepAlive{Lease: lease, Ask: ask, Ticket: ticket})
		answer := k.collect(first, 1)[0]
		k.epoch = max(k.epoch, answer.GetEpoch())
		if answer.GetOutcome() != unavailable {
			return answer.GetOutcome()
		}
	}
}

// From a stop on no keepalive is acknowledged, and once the revoke has been heard of the lease is gone. One of which nothing
// comes is ended.
func stopSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	const done, stop, resume = leasev1.Outcome_OUTCOME_DONE, leasev1.Ask_ASK_STOP, leasev1.Ask_ASK_RESUME
	c, k := newCaller(t, conn), newKeepAlives(t, conn)
	leases := c.grant(2)
	revoked, stays := leases[0], leases[1]
	k.renew(revoked)
	require.Equal(t, done, k.tell(stop, revoked, 1))
	require.Equal(t, unavailable, k.ask(revoked)[0].GetOutcome())
	k.renew(stays)

	answer := c.do(call(t, consensusv1.Method_METHOD_LEASE_REVOKE, &pb.LeaseRevokeRequest{ID: revoked}))[0]
	read[pb.LeaseRevokeResponse](t, answer)
	require.Positive(t, answer.GetLeaseEpoch())
	require.Equal(t, answer.GetLeaseEpoch(), k.epoch, "the stop and the revoke name the view")
	require.Equal(t, notFound, k.settle(revoked)[0].GetOutcome())
	k.renew(stays)

	require.Equal(t, notFound, k.tell(stop, missing, 2), "there is nothing to stop")

	require.Equal(t, done, k.tell(stop, stays, 3))
	require.Equal(t, done, k.tell(resume, stays, 3))
	k.renew(stays)
}

func remainingSuite(t *testing.T, _ *services, conn grpc.ClientConnInterface) {
	c, k, client := newCaller(t, conn), newKeepAlives(t, conn), leasev1.NewKeeperClient(conn)
	lease := c.grant(1)[0]
	k.renew(lease)
	var rest []*leasev1.Remaining
	// A lease that was proved to exist may not have been heard of yet; that is said as "ask again".
	require.Eventually(t, func() bool {
		response, err := client.Remaining(bounded(t), &leasev1.RemainingRequest{Leases: []int64{lease, missing}})
		require.NoError(t, err)
		rest = response.GetRemaining()
		return rest[0].GetOutcome() != unavailable
	}, patience, tick)
	require.Len(t, rest, 2)
	require.Equal(t, lease, rest[0].GetLease())
	require.Equal(t, renewed, rest[0].GetOutcome())
	require.LessOrEqual(t, rest[0].GetRemainingTtlS(), int64(ttlS))
	require.Greater(t, rest[0].GetRemainingTtlS(), int64(ttlS-patience.Seconds()))
	require.EqualValues(t, missing, rest[1].GetLease())
	require.Equal(t, notFound, rest[1].GetOutcome())
	require.Zero(t, rest[1].GetRemainingTtlS())
}
