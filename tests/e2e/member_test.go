package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func memberCases() []testCase {
	return []testCase{
		{name: "members", run: members},
		{name: "status", run: memberStatus},
		{name: "who answers for itself", run: ownAnswers},
		{name: "health service", run: healthService},
		{name: "http", run: overHTTP},
		{name: "what is not there yet", run: notThereYet},
	}
}

func members(t *testing.T, s *system) {
	list, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	require.NotEmpty(t, list.Members)
	ids := map[uint64]bool{}
	for _, m := range list.Members {
		require.NotZero(t, m.ID)
		require.NotEmpty(t, m.Name)
		require.NotEmpty(t, m.PeerURLs)
		require.NotEmpty(t, m.ClientURLs)
		require.Subset(t, s.Endpoints(), m.ClientURLs)
		require.False(t, m.IsLearner)
		ids[m.ID] = true
	}
	require.Len(t, ids, len(list.Members))
	require.True(t, ids[list.Header.MemberId], "the header names a member")
}

// ownAnswers: where clients reach one member alone, that member answers what is asked of a member; behind proxies the leader does.
func ownAnswers(t *testing.T, s *system) {
	list, err := s.client.MemberList(bounded(t))
	require.NoError(t, err)
	for _, endpoint := range s.Endpoints() {
		var at []*etcdserverpb.Member
		for _, m := range list.Members {
			if slices.Contains(m.ClientURLs, endpoint) {
				at = append(at, m)
			}
		}
		state, err := s.client.Status(bounded(t), endpoint)
		require.NoError(t, err)
		want := state.Leader
		if len(at) == 1 {
			want = at[0].ID
		}
		require.Equal(t, want, state.Header.MemberId)
		hash, err := s.client.HashKV(bounded(t), endpoint, 0)
		require.NoError(t, err)
		require.Equal(t, want, hash.Header.MemberId)
		if want != state.Leader {
			_, err := etcdserverpb.NewMaintenanceClient(s.ClientAt(t, endpoint).ActiveConnection()).MoveLeader(bounded(t),
				&etcdserverpb.MoveLeaderRequest{TargetID: want})
			require.ErrorContains(t, err, "etcdserver: not leader")
		}
	}
}

func memberStatus(t *testing.T, s *system) {
	put(t, s, key(t, "k"), "v")
	for _, endpoint := range s.Endpoints() {
		st, err := s.client.Status(bounded(t), endpoint)
		require.NoError(t, err)
		require.Equal(t, s.version(), st.Version)
		require.NotZero(t, st.Leader)
		require.NotZero(t, st.RaftTerm)
		require.Positive(t, st.DbSize)
		require.Positive(t, st.DbSizeInUse)
		require.GreaterOrEqual(t, st.RaftIndex, st.RaftAppliedIndex)
		require.NotZero(t, st.RaftAppliedIndex)
		require.Empty(t, st.Errors)
		require.False(t, st.IsLearner)
	}
}

func healthService(t *testing.T, s *system) {
	health := grpc_health_v1.NewHealthClient(s.Conn(t, s.Endpoints()[0]))
	r, err := health.Check(bounded(t), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, r.Status)
	watch, err := health.Watch(bounded(t), &grpc_health_v1.HealthCheckRequest{})
	require.NoError(t, err)
	r, err = watch.Recv()
	require.NoError(t, err)
	require.Equal(t, grpc_health_v1.HealthCheckResponse_SERVING, r.Status)
}

func overHTTP(t *testing.T, s *system) {
	base := s.Endpoints()[0]
	code, body := framework.Get(t, base+"/health")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"health":"true","reason":""}`, body)

	code, body = framework.Get(t, base+"/version")
	require.Equal(t, http.StatusOK, code)
	var version map[string]string
	require.NoError(t, json.Unmarshal([]byte(body), &version))
	require.Equal(t, map[string]string{"etcdserver": s.version(), "etcdcluster": clusterVersion, "storage": clusterVersion}, version)

	code, body = framework.Get(t, base+"/metrics")
	require.Equal(t, http.StatusOK, code)
	for _, name := range append(s.ownMetrics(), "etcd_server_has_leader", "grpc_server_handled_total", "process_resident_memory_bytes") {
		require.Contains(t, body, "\n"+name)
	}
	code, _ = framework.Get(t, base+"/nothing-here")
	require.Equal(t, http.StatusNotFound, code)
}

// What Holdfast does not have yet answers Unimplemented, never a success that was not.
func notThereYet(t *testing.T, s *system) {
	conn := s.Conn(t, s.Endpoints()[0])
	check := func(method string, err error) {
		t.Helper()
		code := status.Code(err)
		if s.implemented() {
			require.NotEqual(t, codes.Unimplemented, code, method)
		} else {
			require.Equal(t, codes.Unimplemented, code, "%s: %v", method, err)
		}
	}
	for _, method := range []string{
		"/etcdserverpb.Auth/AuthStatus", "/etcdserverpb.Auth/UserList", "/etcdserverpb.Auth/RoleList", "/etcdserverpb.Auth/Authenticate",
		"/v3lockpb.Lock/Unlock", "/v3electionpb.Election/Leader",
	} {
		check(method, conn.Invoke(bounded(t), method, &emptypb.Empty{}, &emptypb.Empty{}))
	}
}
