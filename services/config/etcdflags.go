package config

import "strings"

// etcdFlags are the names of all flags of etcd 3.7, hidden and no-longer-working ones left out: they decide which
// environment prefix a flag has and what is refused as "not yet" instead of "unknown".
const etcdFlags = `
advertise-client-urls auth-token auth-token-ttl auto-compaction-mode auto-compaction-retention auto-tls
backend-batch-interval backend-batch-limit backend-bbolt-freelist-type bcrypt-cost
bootstrap-defrag-threshold-megabytes cert-file cipher-suites client-cert-allowed-hostname client-cert-auth
client-cert-file client-crl-file client-key-file compact-hash-check-time compaction-batch-limit
compaction-sleep-interval config-file corrupt-check-time cors data-dir discovery-cacert discovery-cert
discovery-dial-timeout discovery-endpoints discovery-fallback discovery-insecure-skip-tls-verify
discovery-insecure-transport discovery-keepalive-time discovery-keepalive-timeout discovery-key discovery-password
discovery-request-timeout discovery-srv discovery-srv-name discovery-token discovery-user
distributed-tracing-address distributed-tracing-instance-id distributed-tracing-sampling-rate
distributed-tracing-service-name downgrade-check-time election-timeout enable-distributed-tracing
enable-grpc-gateway enable-log-rotation enable-pprof feature-gates force-new-cluster grpc-keepalive-interval
grpc-keepalive-min-time grpc-keepalive-timeout heartbeat-interval host-whitelist initial-advertise-peer-urls
initial-cluster initial-cluster-state initial-cluster-token initial-election-tick-advance key-file
listen-client-http-urls listen-client-urls listen-metrics-urls listen-peer-urls log-format log-level log-outputs
log-rotation-config-json logger max-concurrent-streams max-learners max-request-bytes max-snapshots max-txn-ops
max-wals memory-mlock metrics name peer-auto-tls peer-cert-allowed-cn peer-cert-allowed-hostname peer-cert-file
peer-client-cert-auth peer-client-cert-file peer-client-key-file peer-crl-file peer-key-file
peer-skip-client-san-verification peer-trusted-ca-file pre-vote quota-backend-bytes raft-read-timeout
raft-write-timeout self-signed-cert-validity snapshot-catchup-entries snapshot-count socket-reuse-address
socket-reuse-port strict-reconfig-check tls-max-version tls-min-version trusted-ca-file unsafe-no-fsync
v2-deprecation version wal-dir warning-apply-duration warning-unary-request-duration watch-progress-notify-interval
`

// isEtcdFlag tells whether etcd 3.7 has a flag of that name.
func isEtcdFlag(name string) bool {
	for known := range strings.FieldsSeq(etcdFlags) {
		if known == name {
			return true
		}
	}
	return false
}

// isEtcdFileKey tells whether etcd 3.7's configuration file may have that key: most flags by their name, and a few
// groups.
func isEtcdFileKey(key string) bool {
	switch key {
	case "client-transport-security", "peer-transport-security", "discovery-config", "socket-options":
		return true
	}
	return isEtcdFlag(key)
}

// The prefixes of environment variables.
const (
	etcdPrefix = "ETCD_"
	oursPrefix = "HOLDFAST_"
)

// EnvName is the environment variable of a flag.
func EnvName(flag string) string {
	prefix := oursPrefix
	if isEtcdFlag(flag) {
		prefix = etcdPrefix
	}
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// flagName is the flag that an environment variable stands for.
func flagName(env string) string {
	_, rest, _ := strings.Cut(env, "_")
	return strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
}
