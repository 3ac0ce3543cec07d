module github.com/holdfastdb/holdfast/tests

go 1.26.0

require (
	github.com/holdfastdb/holdfast/deploy v0.0.0
	github.com/holdfastdb/holdfast/services v0.0.0
	github.com/stretchr/testify v1.12.1
	go.etcd.io/etcd/api/v3 v3.7.3
	go.etcd.io/etcd/client/v3 v3.7.3
	go.opentelemetry.io/proto/otlp v1.11.1
	go.uber.org/zap v1.27.1
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/coreos/go-semver v0.3.1 // indirect
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/grpc-ecosystem/grpc-gateway/v2 v2.31.0 // indirect
	go.etcd.io/etcd/client/pkg/v3 v3.7.3 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.61.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/api v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
)

replace (
	github.com/holdfastdb/holdfast/consensus-node => ../consensus-node
	github.com/holdfastdb/holdfast/deploy => ../deploy
	github.com/holdfastdb/holdfast/lease-service => ../lease-service
	github.com/holdfastdb/holdfast/proto => ../proto
	github.com/holdfastdb/holdfast/proxy => ../proxy
	github.com/holdfastdb/holdfast/services => ../services
	github.com/holdfastdb/holdfast/watch-hub => ../watch-hub
)
