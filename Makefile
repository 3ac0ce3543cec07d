# How Holdfast is built, run and checked. `make help` lists the targets.

# The modules of go.work, the ones without siblings first.
MODULES := proto services proxy consensus-node watch-hub lease-service deploy tests
# Those that hold packages.
PACKAGED = $(foreach m,$(MODULES),$(if $(shell find $(m) -name '*.go' -print -quit),$(m)))
PATTERNS = $(foreach m,$(PACKAGED),./$(m)/...)

# A tag names the version; without one the build keeps the version that its source says.
VERSION ?= $(shell git describe --tags 2>/dev/null)
VERSION_PACKAGE := github.com/holdfastdb/holdfast/services/version
LDFLAGS := -s -w -X $(VERSION_PACKAGE).GitSHA=$(shell git rev-parse --short HEAD 2>/dev/null) \
	$(if $(VERSION),-X $(VERSION_PACKAGE).Holdfast=$(VERSION))
GO_BUILD := CGO_ENABLED=0 go build -buildvcs=false -trimpath
# Tools have modules of their own outside go.work, so that what they need decides no version of ours.
TOOL_BUILD := GOWORK=off GOFLAGS=-mod=readonly $(GO_BUILD)

# What the tests run besides our own programs.
TEST_TOOLS := bin/etcdctl bin/etcdutl bin/nats-server bin/etcd
GO_TEST_FLAGS := -race -shuffle=on -p 2 -timeout 10m

# A recipe line stops at its first failing command.
.SHELLFLAGS := -eu -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

## help: this list
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST) | awk '{i = index($$0, ": "); printf "  %-16s %s\n", substr($$0, 1, i-1), substr($$0, i+2)}'

# ---- Building -----------------------------------------------------------------------------------

## build: the programs, static, into bin/
.PHONY: build
build: bin/holdfast bin/proxy bin/consensus-node bin/watch-hub bin/lease-service

# go build knows what is older than its sources, in every module: always ask it.
.PHONY: bin/holdfast bin/proxy bin/consensus-node bin/watch-hub bin/lease-service bin/cluster bin/health
bin/holdfast:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./deploy/standalone
bin/proxy:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./proxy/cmd/proxy
bin/consensus-node:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./consensus-node/cmd/consensus-node
bin/watch-hub:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./watch-hub/cmd/watch-hub
bin/lease-service:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./lease-service/cmd/lease-service
bin/health:
	@$(GO_BUILD) -ldflags '$(LDFLAGS)' -o $@ ./deploy/health
bin/cluster:
	@$(GO_BUILD) -o $@ ./deploy/cluster

# A tool is built again when its module names another version.
define tool # name of the program, folder in tools/, package
bin/$(1): tools/$(2)/go.mod tools/$(2)/go.sum
	@echo "building $$@"
	@cd tools/$(2) && $(TOOL_BUILD) -o ../../bin/$(1) $(3)
	@touch $$@
endef
$(eval $(call tool,etcdctl,etcdctl,go.etcd.io/etcd/etcdctl/v3))
$(eval $(call tool,etcdutl,etcdutl,go.etcd.io/etcd/etcdutl/v3))
$(eval $(call tool,etcd,etcd,go.etcd.io/etcd/server/v3))
$(eval $(call tool,etcd-benchmark,etcd-benchmark,go.etcd.io/etcd/v3/tools/benchmark))
$(eval $(call tool,nats-server,nats-server,github.com/nats-io/nats-server/v2))
$(eval $(call tool,jaeger,jaeger,github.com/jaegertracing/jaeger/cmd/jaeger))
$(eval $(call tool,golangci-lint,golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint))
$(eval $(call tool,buf,buf,github.com/bufbuild/buf/cmd/buf))
$(eval $(call tool,protoc-gen-go,protoc-gen,google.golang.org/protobuf/cmd/protoc-gen-go))
$(eval $(call tool,protoc-gen-go-grpc,protoc-gen,google.golang.org/grpc/cmd/protoc-gen-go-grpc))
$(eval $(call tool,protoc-gen-go-vtproto,protoc-gen,github.com/planetscale/vtprotobuf/cmd/protoc-gen-go-vtproto))
GEN_TOOLS := bin/buf bin/protoc-gen-go bin/protoc-gen-go-grpc bin/protoc-gen-go-vtproto

# ---- Running ------------------------------------------------------------------------------------

# exec: signals to make's child must reach the runner, not a shell.
## run: standalone on 127.0.0.1:2379, data in default.holdfast; Ctrl-C stops it
.PHONY: run
run: bin/holdfast bin/etcdctl bin/cluster
	@exec bin/cluster standalone -- --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379

## cluster: the split system as local processes, clients on 2379 and 22379; Ctrl-C stops all
.PHONY: cluster
cluster: build bin/cluster bin/nats-server bin/etcdctl
	@exec bin/cluster

## cluster-start: start a process again in a running `make cluster`, by name: P=n1
.PHONY: cluster-start
cluster-start: bin/cluster
	@test -n '$(P)' || { echo 'name the process: make cluster-start P=n1' >&2; exit 1; }
	@exec bin/cluster start '$(P)'

## clean-data: delete what `make run` and `make cluster` stored
.PHONY: clean-data
clean-data:
	rm -rf -- *.holdfast

# ---- Containers ---------------------------------------------------------------------------------

OURS := holdfast proxy consensus-node watch-hub lease-service

## images: container images of our programs, FROM scratch
.PHONY: images
images: build bin/health
	@VERSION='$(VERSION)' deploy/images/ours.sh $(OURS)

## images-offline: images of NATS, Jaeger, HAProxy and Prometheus without a registry
.PHONY: images-offline
images-offline: bin/nats-server bin/jaeger bin/health
	@deploy/images/offline.sh

# ---- Checking -----------------------------------------------------------------------------------

## test: all tests of all modules with the race detector
.PHONY: test
test: build bin/cluster $(TEST_TOOLS)
	go test $(GO_TEST_FLAGS) $(PATTERNS)

## lint: golangci-lint, gofmt, go vet and buf lint
.PHONY: lint
lint: bin/golangci-lint bin/buf modules
	cd proto && ../bin/buf lint
	@unformatted=$$(gofmt -l $(PACKAGED)); test -z "$$unformatted" || { echo "not gofmt-ed: $$unformatted" >&2; exit 1; }
	bin/golangci-lint run $(PATTERNS)

## fix: format, and mend what the linters can mend themselves
.PHONY: fix
fix: bin/golangci-lint
	bin/golangci-lint run --fix $(PATTERNS)

## modules: one version of each dependency everywhere; each module vets alone
.PHONY: modules
modules: versions
	@for m in $(PACKAGED); do echo "go vet: $$m alone"; (cd $$m && GOWORK=off go vet ./...); done

## versions: one version of each third-party module across the workspace
.PHONY: versions
versions:
	@awk -f tools/versions.awk $(addsuffix /go.mod,$(MODULES))

## gen: generate the Go code of proto/ again
.PHONY: gen
gen: $(GEN_TOOLS)
	cd proto && ../bin/buf lint
	find proto -name '*.pb.go' -delete
	cd proto && ../bin/buf generate
	gofmt -w proto/holdfast

# In a copy, so that it also tells of a working copy that is not committed yet.
## gen-check: fail where proto/ holds other code than `make gen` makes
.PHONY: gen-check
gen-check: $(GEN_TOOLS)
	@copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; \
	cp -r proto "$$copy/proto"; ln -s "$(CURDIR)/bin" "$$copy/bin"; \
	find "$$copy/proto" -name '*.pb.go' -delete; \
	(cd "$$copy/proto" && ../bin/buf generate); gofmt -w "$$copy/proto/holdfast"; \
	diff -r proto "$$copy/proto" || { echo 'proto/ is not what make gen makes: run it and commit' >&2; exit 1; }

## compose-check: docker-compose.yml is valid, where docker-compose is installed
.PHONY: compose-check
compose-check:
	@if command -v docker-compose >/dev/null; then docker-compose -f docker-compose.yml config -q && echo 'docker-compose.yml is valid'; \
	else echo 'docker-compose is not installed: docker-compose.yml not checked'; fi

## bench: measure against etcd; ROW=put-1000 runs one row, BENCH_FLAGS='-runs=5' adds flags
.PHONY: bench
bench: build bin/cluster bin/nats-server bin/etcd
	cd tests && go run ./bench -row='$(ROW)' $(BENCH_FLAGS)

## test-compose: the whole system in containers, each service killed and cut off under load; needs Docker
.PHONY: test-compose
test-compose: images bin/nats-server bin/jaeger
	@deploy/images/offline.sh --missing nats jaeger haproxy
	cd tests && go test -count=1 -v -timeout 20m ./compose -compose $(COMPOSE_TEST_FLAGS)

## rules-check: Prometheus's configuration and alert rules, by promtool of Debian's package
.PHONY: rules-check
rules-check:
	@if [ ! -e bin/promtool ] && ! command -v apt-get >/dev/null; then echo 'no promtool: the alert rules are not checked'; \
	else $(MAKE) --no-print-directory bin/promtool && cd deploy/prometheus && ../../bin/promtool check config prometheus.yml && \
	../../bin/promtool test rules alerts_test.yml; fi
bin/promtool:
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; mkdir -p bin; cd "$$work"; \
	apt-get download -qq -o APT::Sandbox::User=root prometheus; dpkg-deb -x prometheus_*.deb .; cp usr/bin/promtool '$(CURDIR)/bin/promtool'

## manifests-check: the manifests of Kubernetes and docker-compose.yml, by their own loaders
.PHONY: manifests-check
manifests-check:
	cd tools/manifests-check && GOWORK=off go test ./...

# What a fresh machine has no time for is left to test-compose: to build Jaeger, and to find traces in it.
## compose-ci: test-compose without Jaeger, where a Docker engine answers
.PHONY: compose-ci
compose-ci:
	@if ! docker version >/dev/null 2>&1; then echo 'no Docker engine answers: the system in containers is not tested here'; \
	else $(MAKE) --no-print-directory images bin/nats-server && deploy/images/offline.sh --missing nats haproxy && \
	cd tests && go test -count=1 -v -timeout 15m ./compose -compose -jaeger=false; fi

# The tests come last, so that their own lines close the output.
## ci: everything that .ci/run checks
.PHONY: ci
ci:
	$(MAKE) --no-print-directory gen-check
	$(MAKE) --no-print-directory compose-check
	$(MAKE) --no-print-directory rules-check
	$(MAKE) --no-print-directory manifests-check
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory build
	$(MAKE) --no-print-directory compose-ci
	$(MAKE) --no-print-directory test

## tidy: each go.mod holds what its module needs, and the same versions everywhere
.PHONY: tidy
tidy:
	for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done
	go work sync
	for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done
	@$(MAKE) --no-print-directory versions

