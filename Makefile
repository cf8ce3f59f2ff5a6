# Every target with a ## comment shows in `make`.
SHELL := /bin/sh
GO ?= go
MODULES := shared gateway worker cli
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/gradefleet/gradefleet/shared/buildinfo.version=$(VERSION)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

.DEFAULT_GOAL := help
.PHONY: help run build test test-python test-long lint vuln bench clean

help: ## Show this help.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Run the whole fleet in one process. LISTEN, MONITOR and DATA override the defaults.
	@mkdir -p bin && $(GO) build -ldflags '$(LDFLAGS)' -o bin/gradefleet ./cli/cmd/gradefleet
	@exec bin/gradefleet up

build: ## Build gradefleet, gateway and worker into bin/.
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/gradefleet ./cli/cmd/gradefleet
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/gateway ./gateway/cmd/gateway
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/worker ./worker/cmd/worker

test: test-go test-python test-readme ## Run every test, with the race detector (3 to 4 minutes on 2 cores, 6 if everything is to be compiled).

# Many tests wait most of their time, so more packages run at once than there are
# cores; the longest begin first.
TEST_PACKAGES ?= 4
TEST_FIRST := ./cli/internal/fleettest/... ./worker/...

.PHONY: test-go
test-go: ## Run the Go tests, TEST_PACKAGES (4) packages at a time.
	$(GO) test -race -timeout 10m -p $(TEST_PACKAGES) $(TEST_FIRST) $(MODULES:%=./%/...)

test-python: build ## Run the Python client's tests against a fleet started for them.
	@sh clients/python/test.sh

.PHONY: test-readme
test-readme: build ## Run the README's command lines and the example problems against a fleet started for them.
	@sh scripts/with-fleet.sh sh -c 'cd cli && $(GO) test -count=1 ./internal/docs'
	@sh scripts/with-fleet.sh sh -c 'bin/gradefleet grade --url "$$GRADEFLEET_URL" examples/problems.jsonl'

.PHONY: test-processes
test-processes: build bin/nats-server ## Test separate processes: an external NATS server, two gateways, three workers, kill -9.
	cd cli && TEST_SEPARATE_PROCESSES=1 $(GO) test -count=1 -timeout 10m -run 'Process|Killed|Restarted|Embedded' -v ./internal/fleettest
	cd cli && TEST_SEPARATE_PROCESSES=1 $(GO) test -count=1 ./internal/localfleet

CHAOS_MINUTES ?= 2

.PHONY: chaos
chaos: build bin/nats-server bin/chaos ## Kill, stop, cut off and restart parts of a fleet under load, and check every answer and write (CHAOS_MINUTES, CHAOS_SEED).
	@CHAOS_MINUTES=$(CHAOS_MINUTES) bin/chaos run

.PHONY: chaos-roll
chaos-roll: build bin/nats-server bin/chaos ## Restart every process of a fleet in turn under load; no request may fail.
	@bin/chaos roll

.PHONY: chaos-figures
chaos-figures: build bin/nats-server bin/chaos ## Measure how long a killed worker's jobs and sessions are away (CHAOS_KILLS), and a batch under kills.
	@bin/chaos figures
	@bin/chaos batch

.PHONY: bin/chaos
bin/chaos:
	$(GO) build -o bin/chaos ./cli/cmd/chaos

bin/nats-server: shared/go.sum
	cd shared && $(GO) build -o ../bin/nats-server github.com/nats-io/nats-server/v2

test-long: ## Run the slow tests: fuzzing for some minutes, the full differential test.
	cd worker && GRADEFLEET_DIFFERENTIAL_PAIRS=5000000 $(GO) test -run Differential -v -timeout 20m ./internal/pyvalue
	cd worker && for f in FuzzParse FuzzDecodeMarshal FuzzParseArgs FuzzUnquoteJSON; do $(GO) test -run xxx -fuzz "^$$f$$" -fuzztime 60s ./internal/pyvalue || exit 1; done

.PHONY: redteam
redteam: ## Attack fleets as root, as a user without rights, in a plain container, and with each layer left out; print the scores.
	@sh scripts/redteam.sh all

.PHONY: secrets
secrets: ## Make .env for docker compose, with random passwords; what is there stays.
	@sh scripts/secrets.sh

.PHONY: images
images: ## Build the images of gateway and worker, tagged with VERSION and latest.
	@for i in gateway worker; do docker build --target $$i --build-arg VERSION=$(VERSION) -f deploy/docker/Dockerfile -t gradefleet/$$i:$(VERSION) -t gradefleet/$$i:latest . || exit 1; done

.PHONY: images-offline
images-offline: ## Build every image of the compose file without an image registry, and have docker compose use them.
	@VERSION=$(VERSION) sh deploy/offline/images.sh
	@grep -qs '^COMPOSE_FILE=' .env || (umask 077; echo COMPOSE_FILE=docker-compose.yml:deploy/offline/compose.yml >>.env)
	@echo "docker compose uses these images: COMPOSE_FILE is in .env"

.PHONY: compose-test
compose-test: ## Test the compose file in a Docker engine, with images made offline: scale, load, kill, alert (root).
	@sh scripts/compose-test.sh

.PHONY: rules-test
rules-test: ## Test the Prometheus configuration and rules with promtool: the machine's, the offline image's or Debian's.
	@sh scripts/promtool.sh check config prometheus.yml
	@sh scripts/promtool.sh test rules rules_test.yml

.PHONY: kubernetes-test
kubernetes-test: ## Hold the Kubernetes manifests against types, Pod Security and settings.
	@cd deploy/kubernetes/validate && GOWORK=off $(GO) test -count=1 ./...

.PHONY: kubernetes-secrets
kubernetes-secrets: secrets ## Print the Secrets of a Kubernetes deployment, with the passwords of .env.
	@sh scripts/kubernetes-secrets.sh

lint: ## Check format, vet, staticcheck and the Python client's syntax.
	@bad=$$(gofmt -l $(MODULES) deploy); if [ -n "$$bad" ]; then echo "not gofmt'ed: $$bad"; exit 1; fi
	$(GO) vet $(MODULES:%=./%/...)
	$(GO) run $(STATICCHECK) $(MODULES:%=./%/...)

vuln: ## Look for known vulnerabilities in dependencies (needs the vulnerability database).
	@for m in $(MODULES); do echo "$$m:"; (cd $$m && $(GO) run $(GOVULNCHECK) ./...) || exit 1; done

bench: build bin/nats-server ## Measure the fleet, the engine and bare Python in turns (4 minutes). ORIGINAL=http://… adds the original, JSON=1 prints JSON.
	@sh scripts/bench.sh

.PHONY: overload
overload: build bin/nats-server ## Send a fleet four times what it can answer, for a minute: nothing but right answers and 429, waits bounded, memory flat.
	@bin/gradefleet overload $(OVERLOAD)

.PHONY: bench-go
bench-go: ## Measure parser, comparer, frames, verdicts, placement and shape check, with allocations.
	$(GO) test -run xxx -bench "Parse|Equal|Marshal|JSON|Frame|Encode|Choose|Check" -benchmem -benchtime 0.3s ./worker/internal/pyvalue ./worker/internal/pyrunner ./worker/internal/verdict ./gateway/internal/placement ./gateway/internal/shape

.PHONY: bench-durable
bench-durable: build ## Measure what storing sessions costs: two fleets in turns, with durability durable and local.
	@sh scripts/bench-durable.sh

.PHONY: simulate
simulate: build bin/nats-server ## Measure what a fleet costs with 1, 10, 100 and 1,000 simulated workers (7 minutes; JOBS=20000 for less).
	@bin/gradefleet growth --jobs $(or $(JOBS),100000) --rate $(or $(RATE),2000)

.PHONY: bench-isolation
bench-isolation: ## Measure what the sandbox costs a job beside rlimits alone, all layers and each by itself.
	cd worker && $(GO) test -run xxx -bench Isolation -benchtime 3s ./internal/execute

clean: ## Remove what was built.
	rm -rf bin .cache
