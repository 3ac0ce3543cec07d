package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/holdfastdb/holdfast/tests/framework"
)

func alarmCases() []testCase { return []testCase{{name: "corrupt alarm", run: corruptAlarm}} }

// While any member counts as corrupt, writes are refused and reads, keepalives and everything about members go on. Whoever takes the alarm
// back gets all of it again.
func corruptAlarm(t *testing.T, s *system) {
	conn := s.Conn(t, s.Endpoints()[0])
	kv, lease, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
	cluster := pb.NewClusterClient(conn)
	k := []byte(key(t, "k"))
	before := put(t, s, string(k), "v")
	granted, kept := int64(grant(t, s, longTTL)), grant(t, s, longTTL)
	alarm := func(action pb.AlarmRequest_AlarmAction) *pb.AlarmResponse {
		t.Helper()
		r, err := maintenance.Alarm(bounded(t), &pb.AlarmRequest{Action: action, MemberID: 5, Alarm: pb.AlarmType_CORRUPT})
		require.NoError(t, err)
		require.Len(t, r.Alarms, 1)
		return r
	}
	alarm(pb.AlarmRequest_ACTIVATE)
	t.Cleanup(func() { // the cases that follow write
		_, _ = maintenance.Alarm(context.WithoutCancel(t.Context()), &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: 5, Alarm: pb.AlarmType_CORRUPT,
		})
	})

	rangeOp := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k}}}
	putOp := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k}}}
	refused := rpctypes.ErrGRPCCorrupt
	for _, c := range []struct {
		name string
		want error
		call func(ctx context.Context) error
	}{
		{"put", refused, func(ctx context.Context) error { _, err := kv.Put(ctx, &pb.PutRequest{Key: k}); return err }},
		{"put under an unknown lease", refused, func(ctx context.Context) error {
			_, err := kv.Put(ctx, &pb.PutRequest{Key: k, Lease: 404})
			return err
		}},
		{"malformed put", rpctypes.ErrGRPCEmptyKey, func(ctx context.Context) error { _, err := kv.Put(ctx, &pb.PutRequest{}); return err }},
		{"delete of nothing", refused, func(ctx context.Context) error {
			_, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key(t, "none"))})
			return err
		}},
		{"writing txn", refused, func(ctx context.Context) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOp}})
			return err
		}},
		{"reading txn", nil, func(ctx context.Context) error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp}})
			return err
		}},
		{"compaction", refused, func(ctx context.Context) error {
			_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: before})
			return err
		}},
		{"compaction of the future", refused, func(ctx context.Context) error {
			_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: before + 1000})
			return err
		}},
		{"grant", refused, func(ctx context.Context) error {
			_, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: longTTL})
			return err
		}},
		{"revoke", refused, func(ctx context.Context) error {
			_, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: granted})
			return err
		}},
		{"revoke of an unknown lease", refused, func(ctx context.Context) error {
			_, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 404})
			return err
		}},
		{"range", nil, func(ctx context.Context) error { _, err := kv.Range(ctx, &pb.RangeRequest{Key: k}); return err }},
		{"serializable range", nil, func(ctx context.Context) error {
			_, err := kv.Range(ctx, &pb.RangeRequest{Key: k, Serializable: true})
			return err
		}},
		{"time to live", nil, func(ctx context.Context) error {
			_, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: granted})
			return err
		}},
		{"leases", nil, func(ctx context.Context) error {
			_, err := lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
			return err
		}},
		{"hash", nil, func(ctx context.Context) error { _, err := maintenance.HashKV(ctx, &pb.HashKVRequest{}); return err }},
		{"members", nil, func(ctx context.Context) error {
			_, err := cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
			return err
		}},
	} {
		if err := c.call(bounded(t)); c.want == nil {
			require.NoError(t, err, c.name)
		} else {
			require.EqualError(t, err, c.want.Error(), c.name)
		}
	}
	raised := []string{"memberID:5", "alarm:CORRUPT"}
	status, err := maintenance.Status(bounded(t), &pb.StatusRequest{})
	require.NoError(t, err)
	renewed, err := s.client.KeepAliveOnce(bounded(t), kept)
	require.NoError(t, err)
	require.EqualValues(t, longTTL, renewed.TTL)
	require.Len(t, status.Errors, 1)
	require.Equal(t, raised, strings.Fields(status.Errors[0]), "the spaces differ from one build of protobuf to the next")
	code, body := framework.Get(t, s.Endpoints()[0]+"/health")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.JSONEq(t, `{"health":"false","reason":"ALARM CORRUPT"}`, body)
	require.Equal(t, raised, strings.Fields(ctl(t, s, "alarm", "list")))
	got := get(t, s, string(k))
	require.Equal(t, "v", string(got.Kvs[0].Value))
	require.Equal(t, before, got.Header.Revision, "nothing was written")

	require.Equal(t, raised, strings.Fields(ctl(t, s, "alarm", "disarm")))
	require.Equal(t, before+1, put(t, s, string(k), "w"))
	_, err = lease.LeaseRevoke(bounded(t), &pb.LeaseRevokeRequest{ID: granted})
	require.NoError(t, err)
}
