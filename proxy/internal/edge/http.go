package edge

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	consensusv1 "github.com/holdfastdb/holdfast/proto/holdfast/consensus/v1"
	"github.com/holdfastdb/holdfast/proxy/internal/calls"
	"github.com/holdfastdb/holdfast/proxy/internal/routing"
	"github.com/holdfastdb/holdfast/services/version"
)

// HTTP serves /health and /version in etcd's forms, and metrics at /metrics if not nil.
func (e *Edge) HTTP(metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", e.health)
	mux.HandleFunc("/version", serveVersion)
	if metrics != nil {
		mux.Handle("/metrics", metrics)
	}
	return mux
}

// health is etcd's answer: the strings "true" and "false", and a reason.
type health struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

func (e *Edge) health(w http.ResponseWriter, r *http.Request) {
	if !get(w, r) {
		return
	}
	query := r.URL.Query()
	// Some balancers tell a server that wants no new calls from one that is gone, by 404 (HAProxy's disable-on-404).
	refusal := http.StatusServiceUnavailable
	if query.Get("unhealthy") == "404" {
		refusal = http.StatusNotFound
	}
	reason := e.unhealthy(r.Context(), query.Get("serializable") == "true", query["exclude"])
	answer := health{Health: "true", Reason: reason}
	if reason != "" {
		answer.Health = "false"
	}
	body, err := json.Marshal(answer)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case reason != "":
		e.config.Metrics.unhealthy.Inc()
		http.Error(w, string(body), refusal)
	default:
		e.config.Metrics.healthy.Inc()
		_, _ = w.Write(body) // a client that has gone needs no answer
	}
}

// Drain has /health say from now on that no more calls should come.
func (e *Edge) Drain() { e.draining.Store(true) }

// Draining tells whether it does.
func (e *Edge) Draining() bool { return e.draining.Load() }

// unhealthy gives etcd's reason for not being healthy, or "".
func (e *Edge) unhealthy(ctx context.Context, serializable bool, exclude []string) string {
	if e.draining.Load() {
		return "DRAINING"
	}
	class := routing.Linearizable
	if serializable {
		class = routing.Serializable
	}
	if reason := e.alarms(ctx, exclude); reason != "" {
		return reason
	}
	if !serializable && !e.config.Topology.Table().HasLeader() {
		return "RAFT NO LEADER"
	}
	request, err := proto.Marshal(&pb.RangeRequest{Key: []byte{0}, KeysOnly: true, Limit: 1, Serializable: serializable})
	if err == nil {
		_, err = e.config.Calls.Do(ctx, &calls.Call{Method: consensusv1.Method_METHOD_RANGE, Class: class, Request: request})
	}
	if err != nil {
		return "RANGE ERROR:" + status.Convert(err).Message()
	}
	return ""
}

// alarms gives the reason if an alarm is raised that is not excluded. No answer is no alarm: the checks that follow tell
// more.
func (e *Edge) alarms(ctx context.Context, exclude []string) string {
	if !e.config.Topology.Table().HasLeader() {
		return ""
	}
	answer, err := e.config.Calls.Do(ctx, &calls.Call{
		Method: consensusv1.Method_METHOD_ALARM, Class: routing.Linearizable,
	})
	if err != nil {
		return ""
	}
	var response pb.AlarmResponse
	if err := proto.Unmarshal(answer.GetResponse(), &response); err != nil {
		return ""
	}
	for _, alarm := range response.GetAlarms() {
		if slices.Contains(exclude, alarm.GetAlarm().String()) {
			continue
		}
		switch alarm.GetAlarm() {
		case pb.AlarmType_NONE:
		case pb.AlarmType_NOSPACE:
			return "ALARM NOSPACE"
		case pb.AlarmType_CORRUPT:
			return "ALARM CORRUPT"
		default:
			return "ALARM UNKNOWN"
		}
	}
	return ""
}

func serveVersion(w http.ResponseWriter, r *http.Request) {
	if !get(w, r) {
		return
	}
	body, err := json.Marshal(struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
		Storage string `json:"storage"`
	}{version.API, version.ClusterAPI, version.ClusterAPI})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // as above
}

// get refuses every other method, as etcd does.
func get(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// Ready tells whether the proxy can serve: a leader is known and reachable.
func (e *Edge) Ready() bool {
	_, ok := e.config.Topology.Table().Route(routing.Write, 0, "")
	return ok
}

// FollowReadiness tells the health service, and the metric, at each change until the context ends.
func (e *Edge) FollowReadiness(ctx context.Context, serving func(bool)) {
	for {
		table, changed := e.config.Topology.Changed()
		_, ok := table.Route(routing.Write, 0, "")
		serving(ok)
		leader := 0.0
		if table.HasLeader() {
			leader = 1
		}
		e.config.Metrics.hasLeader.Set(leader)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
