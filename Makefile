# minato: every target says what it does; `make` alone lists them.
SHELL := /bin/bash
# One set of flags for everything, so that builds and tests share what is compiled. The race detector needs cgo.
export GOFLAGS := -buildvcs=false
export CGO_ENABLED := 0
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-dev)
LDFLAGS := -s -w -X minato/internal/cli.Version=$(VERSION)
BIN := bin/minato
CNI := internal/cluster/cni/bin/minato-cni
NAME ?= minato
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Packages that link k8s.io/kubernetes take minutes under the race detector and are tested without it.
RACE := $(shell go list ./internal/... 2>/dev/null | grep -v -e /cluster -e /cli -e /run -e /warm)
HEAVY := ./internal/cluster/... ./internal/cli/... ./internal/run/...

.PHONY: help up down clean setup build check test test-unit test-netns test-walkthrough test-walkthrough-dual test-walkthrough-ipv6 lint cross bench fuzz images oracle stress agent bench-proxy oracle-dns stress-instance
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'

setup: ## install what a fresh Debian or Ubuntu lacks (Go, containerd, runc)
	@scripts/setup

build: $(BIN) ## build bin/minato

$(CNI): $(wildcard cmd/minato-cni/*.go internal/cluster/cni/plugin/*.go) go.mod
	go build -ldflags '-s -w' -o $@ ./cmd/minato-cni

.PHONY: $(BIN)
$(BIN): $(CNI)
	go build -ldflags '$(LDFLAGS)' -o $@ ./cmd/minato

agent: ## build bin/minato-agent, for a node of an existing cluster
	go build -ldflags '-s -w' -o bin/minato-agent ./cmd/minato-agent

up: setup ## build and start a cluster in the background, wait until it is ready
	@$(MAKE) --no-print-directory build
	@$(SUDO) $(BIN) up --name $(NAME) --detach
	@scripts/next-steps $(BIN) $(NAME)

down: ## stop the cluster; its state stays
	@[ ! -x $(BIN) ] || $(SUDO) $(BIN) down --name $(NAME)

clean: ## stop the cluster and remove every trace of it and of the build
	@[ ! -x $(BIN) ] || $(SUDO) $(BIN) delete --name $(NAME)
	rm -rf bin $(CNI)

check: $(CNI) ## the inner loop: vet, static analysis, unit tests (<= 5 minutes warm)
	go vet ./...
	CGO_ENABLED=1 go test -race $(RACE)
	go test -short $(HEAVY)

lint: ## static analysis: go vet, staticcheck, gofmt
	@test -z "$$(gofmt -l cmd internal test bench | tee /dev/stderr)" || { echo 'run gofmt -w on these'; exit 1; }
	go vet ./...
	go tool staticcheck ./...

test: ## everything that CI runs (<= 45 minutes cold)
	@scripts/test

test-netns: ## the real-kernel tests, in network namespaces of their own
	go test -count=1 ./test/netns/... ./internal/nfnl/... ./internal/dataplane/...

test-walkthrough: build ## the articles, step by step, on real containers
	MINATO_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 30m ./test/walkthrough/...

oracle: ## kube-proxy's own tests against minato's plan, rules and packets, and kube-proxy itself as control (4 minutes)
	cd test/oracle && GOFLAGS="$(GOFLAGS) -mod=mod" go test -count=1 -timeout 20m ./...

oracle-dns: ## compare DNS with CoreDNS 1.15.0, answer by answer (a module of its own; builds CoreDNS)
	cd test/oracle/dns && GOFLAGS="$(GOFLAGS) -mod=mod" go test -count=1 -timeout 20m ./...

fuzz: ## fuzz every reader of foreign bytes, 5 minutes each (FUZZTIME=5m)
	scripts/fuzz

stress: ## random changes, kills and errors for DURATION (10m); SEED=n does one again
	go test -count=1 -v -timeout 0 ./test/stress -args -duration $(or $(DURATION),10m) $(if $(SEED),-seed $(SEED))

test-walkthrough-dual: build ## the articles again, in instances of both IP families
	MINATO_IP_FAMILY=dual MINATO_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 60m ./test/walkthrough/...

test-walkthrough-ipv6: build ## the articles again, in instances without IPv4; what needs it is skipped and says why
	MINATO_IP_FAMILY=ipv6 MINATO_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 60m ./test/walkthrough/...

stress-instance: build ## kill minato and containerd 20 times each, 50 times up and down, 150 pods (half an hour)
	MINATO_BIN=$(CURDIR)/$(BIN) go test -count=1 -timeout 90m -v ./test/stress/instance -kills 20 -starts 50 -pods 150

images: ## make the test images from Debian packages
	go run ./test/images

cross: ## build for linux/arm64
	GOARCH=arm64 go build -o /dev/null ./cmd/minato-cni
	GOARCH=arm64 go build -o /dev/null ./cmd/minato
	GOARCH=arm64 go build -o /dev/null ./cmd/minato-agent

.PHONY: bench-dns
bench-dns: ## compare the DNS server with CoreDNS 1.15.0 and NSD (a module of its own; builds CoreDNS)
	bench/dns/run

bench: ## measure, and print the rows of bench/RESULTS.md
	bench/run

bench-proxy: agent ## compare with kube-proxy in its two modes, built from its module (half an hour)
	bench/proxy/run
