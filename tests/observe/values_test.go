package observe

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/holdfastdb/holdfast/tests/framework"
)

const (
	patience = 60 * time.Second
	pause    = 50 * time.Millisecond
)

// sameValue are metrics of one member that must have etcd's value after the same requests.
func sameValue() []string {
	return []string{
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_leader_changes_seen_total",
		"etcd_server_proposals_pending", "etcd_server_quota_backend_bytes", "etcd_server_version", "etcd_server_go_version", "etcd_server_id",
		"etcd_cluster_version", "etcd_disk_defrag_inflight", "etcd_server_snapshot_apply_in_progress_total", "etcd_network_known_peers",
		"etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision", "etcd_debugging_mvcc_compact_revision",
		"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_mvcc_slow_watcher_total",
	}
}

// sameGrowth are those that must have grown as etcd's have.
func sameGrowth() map[string][]string {
	return map[string][]string{
		"etcd_mvcc_put_total": nil, "etcd_mvcc_delete_total": nil, "etcd_mvcc_txn_total": nil,
		"etcd_debugging_mvcc_total_put_size_in_bytes": nil, "etcd_debugging_mvcc_events_total": nil,
		"etcd_debugging_lease_granted_total": nil, "etcd_debugging_lease_revoked_total": nil, "etcd_debugging_lease_renewed_total": nil,
		"etcd_debugging_lease_ttl_total": nil, "etcd_debugging_server_lease_expired_total": nil,
		"etcd_debugging_mvcc_db_compaction_keys_total": nil, "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": nil,
		"etcd_mvcc_hash_duration_seconds": nil, "etcd_mvcc_hash_rev_duration_seconds": nil,
		"etcd_disk_backend_defrag_duration_seconds": nil, "etcd_disk_backend_snapshot_duration_seconds": nil,
		"etcd_server_range_duration_seconds":   {"success"},
		"etcd_server_learner_promote_failures": nil, "etcd_server_learner_promote_successes": nil,
		"etcd_debugging_server_alarms": {"alarm_type"},
		"etcd_server_slow_apply_total": nil, "etcd_server_slow_read_indexes_total": nil, "etcd_server_read_indexes_failed_total": nil,
		"etcd_server_proposals_failed_total": nil, "etcd_server_heartbeat_send_failures_total": nil,
		"etcd_server_health_success": nil, "etcd_server_health_failures": nil,
		"etcd_network_client_grpc_received_bytes_total": nil,
		"grpc_server_started_total":                     {"grpc_service", "grpc_method", "grpc_type"},
		"grpc_server_handled_total":                     {"grpc_service", "grpc_method", "grpc_type", "grpc_code"},
		"grpc_server_msg_received_total":                {"grpc_service", "grpc_method", "grpc_type"},
		"grpc_server_msg_sent_total":                    {"grpc_service", "grpc_method", "grpc_type"},
		"grpc_server_handling_seconds":                  {"grpc_service", "grpc_method", "grpc_type"},
	}
}

// growsToo are those whose values depend on the machine, or on how a system is built: they must grow where etcd's do.
func growsToo() []string {
	return []string{
		"etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total", "etcd_disk_wal_fsync_duration_seconds",
		"etcd_disk_wal_write_bytes_total", "etcd_disk_wal_write_duration_seconds", "etcd_disk_backend_commit_duration_seconds",
		"etcd_debugging_disk_backend_commit_rebalance_duration_seconds", "etcd_debugging_disk_backend_commit_spill_duration_seconds",
		"etcd_debugging_disk_backend_commit_write_duration_seconds", "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
		"etcd_debugging_mvcc_db_compaction_last", "etcd_network_client_grpc_sent_bytes_total", "process_cpu_seconds_total",
	}
}

// alsoThere are those of which no more can be said than that they are not 0.
func alsoThere() []string {
	return []string{
		"etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes", "etcd_mvcc_db_open_read_transactions",
		"process_resident_memory_bytes", "process_virtual_memory_bytes", "process_start_time_seconds", "process_open_fds", "process_max_fds",
		"go_goroutines", "go_threads", "go_info", "go_memstats_alloc_bytes", "promhttp_metric_handler_requests_total",
	}
}

// missing are etcd's metrics that do not exist here; ARCHITECTURE.md says why.
func missing() []string {
	return []string{
		"etcd_debugging_auth_revision", "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
		"etcd_debugging_mvcc_pending_events_total", "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
		"etcd_debugging_server_watch_send_loop_progress_duration_seconds",
		"etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
		"etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds", "etcd_debugging_snap_save_marshalling_duration_seconds",
		"etcd_debugging_snap_save_total_duration_seconds", "etcd_snap_fsync_duration_seconds", "etcd_debugging_store_expires_total",
		"etcd_debugging_store_watch_requests_total", "etcd_debugging_store_watchers", "etcd_grpc_proxy_cache_hits_total",
		"etcd_grpc_proxy_cache_keys_total", "etcd_grpc_proxy_cache_misses_total", "etcd_grpc_proxy_events_coalescing_total",
		"etcd_grpc_proxy_watchers_coalescing_total", "etcd_server_client_requests_total", "os_fd_limit", "os_fd_used",
	}
}

// The same requests give a member's metrics the same values as etcd's, where they mean the same, and nothing that etcd shows is missing but
// what is said to be.
func TestEtcdsValues(t *testing.T) {
	look := func(c *framework.Cluster) (grown, now metrics) {
		before := scrape(t, c.Endpoints()[0])
		everyCall(t, c)
		now = scrape(t, c.Endpoints()[0])
		return now.since(before), now
	}
	extensive := framework.Options{Args: []string{"--metrics", "extensive"}}
	wantGrown, want := look(framework.Etcd(t, extensive))
	gotGrown, got := look(framework.Standalone(t, extensive))
	for _, name := range sameValue() {
		require.Contains(t, want, name)
		require.Contains(t, got, name)
		require.InDelta(t, want.sum(name), got.sum(name), 0, name)
	}
	for name, labels := range sameGrowth() {
		require.Contains(t, want, name)
		require.Contains(t, got, name)
		require.Equal(t, wantGrown.by(name, labels...), gotGrown.by(name, labels...), name)
	}
	// etcd reads a key to answer a compaction, of which there was one.
	require.InDelta(t, wantGrown.sum("etcd_mvcc_range_total")-1, gotGrown.sum("etcd_mvcc_range_total"), 0)
	// etcd revokes a lease that has run out as a client would, here that is a command of its own.
	expired := wantGrown.sum("etcd_debugging_server_lease_expired_total")
	requests := wantGrown.by("etcd_server_request_duration_seconds", "type", "success")
	requests["LeaseRevoke true"] -= expired
	require.Equal(t, requests, gotGrown.by("etcd_server_request_duration_seconds", "type", "success"))
	applied := gotGrown.by("etcd_server_apply_duration_seconds", "op", "success", "version")
	applied["LeaseRevoke true v3"] += applied["LeaseExpire true v3"]
	delete(applied, "LeaseExpire true v3")
	delete(applied, "LeaseView true v3")
	require.Equal(t, wantGrown.by("etcd_server_apply_duration_seconds", "op", "success", "version"), applied)
	for _, name := range growsToo() {
		require.Positive(t, wantGrown.sum(name), name)
		require.Positive(t, gotGrown.sum(name), name)
	}
	for _, name := range alsoThere() {
		require.Positive(t, want.sum(name), name)
		require.Positive(t, got.sum(name), name)
	}
	for _, name := range missing() {
		require.Contains(t, want, name, "etcd has it no more")
		require.NotContains(t, got, name)
		delete(want, name)
	}
	for name := range want {
		require.Contains(t, got, name, "etcd shows it")
	}
}

// everyCall makes calls of each kind, of which some fail.
func everyCall(t *testing.T, c *framework.Cluster) {
	t.Helper()
	conn := c.Conn(t, c.Endpoints()[0])
	kv := pb.NewKVClient(conn)
	put := func(r *pb.PutRequest) {
		t.Helper()
		_, err := kv.Put(t.Context(), r)
		require.NoError(t, err)
	}
	code, _ := framework.Get(t, c.Endpoints()[0]+"/health")
	require.Equal(t, 200, code)
	for i := range 5 {
		put(&pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i%3)})
	}
	event := watchKey(t, conn, "w")
	for range 3 {
		put(&pb.PutRequest{Key: []byte("w"), Value: []byte("value"), PrevKv: true})
		event()
	}
	_, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: 5, Physical: true})
	require.NoError(t, err)
	readsAndTxns(t, kv)
	leaseCalls(t, conn)
	_, err = pb.NewClusterClient(conn).MemberPromote(t.Context(), &pb.MemberPromoteRequest{ID: 1})
	require.Error(t, err)
	upkeep(t, pb.NewMaintenanceClient(conn))
	code, _ = framework.Get(t, c.Endpoints()[0]+"/health")
	require.Equal(t, 503, code, "an alarm is raised")
}

// watchKey watches a key until the test ends; what it returns waits for a response with one event.
func watchKey(t *testing.T, conn *grpc.ClientConn, key string) func() {
	t.Helper()
	watch, err := pb.NewWatchClient(conn).Watch(t.Context())
	require.NoError(t, err)
	require.NoError(t, watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte(key)},
	}}))
	response, err := watch.Recv()
	require.NoError(t, err)
	require.True(t, response.GetCreated())
	return func() {
		t.Helper()
		response, err := watch.Recv()
		require.NoError(t, err)
		require.Len(t, response.GetEvents(), 1)
	}
}

func readsAndTxns(t *testing.T, kv pb.KVClient) {
	t.Helper()
	ctx := t.Context()
	for _, request := range []*pb.RangeRequest{
		{Key: []byte("k0")}, {Key: []byte("k"), RangeEnd: []byte("l"), Serializable: true}, {Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true},
	} {
		_, err := kv.Range(ctx, request)
		require.NoError(t, err)
	}
	_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k0"), Revision: 1 << 40})
	require.Error(t, err)
	_, err = kv.Put(ctx, &pb.PutRequest{Key: []byte("k0"), Lease: 1})
	require.Error(t, err)
	read := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k0")}}}
	write := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k0"), Value: []byte("v")}}}
	exists := &pb.Compare{
		Key: []byte("k0"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 0},
	}
	for _, request := range []*pb.TxnRequest{
		{Compare: []*pb.Compare{exists}, Success: []*pb.RequestOp{write}, Failure: []*pb.RequestOp{read}},
		{Compare: []*pb.Compare{exists, exists}, Success: []*pb.RequestOp{read, write}},
		{Compare: []*pb.Compare{exists}, Success: []*pb.RequestOp{read, read}},
	} {
		_, err := kv.Txn(ctx, request)
		require.NoError(t, err)
	}
	for _, prev := range []bool{false, true} {
		_, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("k1"), RangeEnd: []byte("k3"), PrevKv: prev})
		require.NoError(t, err)
	}
}

func leaseCalls(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, kv, leases := t.Context(), pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	for i, ttl := range []int64{60, 500, 2} {
		id := int64(1001 + i)
		_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		require.NoError(t, err)
		for k := range 2 {
			_, err = kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "leased/%d/%d", id, k), Lease: id})
			require.NoError(t, err)
		}
	}
	expired := watchKey(t, conn, "leased/1003/1")
	_, err := leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 1001, TTL: 60})
	require.Error(t, err)
	keep, err := leases.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, keep.Send(&pb.LeaseKeepAliveRequest{ID: 1001}))
		_, err = keep.Recv()
		require.NoError(t, err)
	}
	_, err = leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 1001})
	require.NoError(t, err)
	live, err := leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1002})
	require.NoError(t, err)
	require.EqualValues(t, 500, live.GetGrantedTTL())
	expired()
}

func upkeep(t *testing.T, maintenance pb.MaintenanceClient) {
	t.Helper()
	ctx := t.Context()
	_, err := maintenance.HashKV(ctx, &pb.HashKVRequest{})
	require.NoError(t, err)
	_, err = maintenance.Hash(ctx, &pb.HashRequest{})
	require.NoError(t, err)
	_, err = maintenance.Defragment(ctx, &pb.DefragmentRequest{})
	require.NoError(t, err)
	snapshot, err := maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	require.NoError(t, err)
	for err == nil {
		_, err = snapshot.Recv()
	}
	_, err = maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE})
	require.NoError(t, err)
}
