# Everything a contributor runs. CI runs the same targets.

GO     ?= go
BIN    := bin
ASHLAR := $(BIN)/ashlar
RUN    ?= run
NODES  ?= 3
FUZZ   ?= 10s
SEED   ?= 1
RUNS   ?= 0
FOR    ?= 5m
DURATION ?= 20m
SOAK ?= 30m
SCHEDULES ?=

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help build run test unit script e2e coherence posix faults sim chaos race lint bench scale stall soak fuzz deps check man clean crash

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

build: ## build bin/ashlar
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(ASHLAR) ./cmd/ashlar

run: deps build ## start a three-node cluster under ./run, mounted at ./run/mnt
	@echo "starting $(NODES) nodes under ./$(RUN); Ctrl-C stops them, data stays; try: make run, then ls $(RUN)/mnt"
	exec $(ASHLAR) dev up --dir $(RUN) --nodes $(NODES) --mount $(RUN)/mnt

test: deps ## run every test: unit, stories, end to end
	scripts/test.sh

unit script e2e coherence posix faults: deps ## run one stage of the tests
	scripts/test.sh $@

crash: ## cut the power before every step of disks, logs and stores: ASHLAR_CRASH_SEEDS=how many workloads
	ASHLAR_CRASH_SEEDS=$${ASHLAR_CRASH_SEEDS:-50} $(GO) test -timeout 30m -count 1 -run 'PowerMay|PowerLoss|NeverBegunTwice|OldOrNew|Power|Torn' \
		./internal/chunkstore ./internal/kv ./internal/consensus/... ./internal/master ./internal/chunkserver

sim: ## simulate clusters under faults: SEED=first RUNS=how many, or FOR=5m
	scripts/sim.sh -from $(SEED) -runs $(RUNS) -for $(FOR)

chaos: deps build ## real processes under faults of every sort for DURATION=20m, or SCHEDULES=100 short ones; CHAOS="-seed 7 -rounds 1" for one round
	$(GO) run ./test/chaos -bin $(ASHLAR) $(if $(SCHEDULES),-short -rounds $(SCHEDULES),-for $(DURATION)) $(CHAOS)

race: ## run unit tests and stories under the race detector
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v -e /test/e2e -e /test/chaos)

lint: ## run golangci-lint, installed into bin/ the first time
	scripts/lint.sh

bench: deps build ## measure mounted volumes against a local directory and peers: a table of ratios
	$(GO) run ./test/bench -bin $(ASHLAR) $(BENCH)

scale: build ## measure what must hold at 10 million inodes and 64 clients at once; fails when a bar is missed
	$(GO) run ./test/scale -bin $(ASHLAR)

stall: deps build ## measure how long applications wait when a node is killed, paused or silent; fails when a bar is missed
	$(GO) run ./test/stall -bin $(ASHLAR)

soak: deps build ## everything a file system can do, on one tree through two mounts, for SOAK=30m; fails on an error, a difference or a leak
	$(GO) run ./test/soak -bin $(ASHLAR) -for $(SOAK)

fuzz: ## run every fuzz target for FUZZ (default 10s) each
	scripts/fuzz.sh $(FUZZ)

deps: ## install what the tests need from the system
	scripts/deps.sh

check: ## what a change must pass before review: build, vet, house rules, formatting
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not formatted:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) build ./...
	$(GO) vet ./...
	$(GO) test ./test/tidy

man: build ## write manual pages to docs/man
	$(ASHLAR) man docs/man

clean: ## remove what was built; ./run stays
	rm -rf $(BIN) dist docs/man
