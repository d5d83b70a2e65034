# Two commands: `make run` (a real Linux machine answers), `make test` (proves it).
SHELL := /bin/bash
.DEFAULT_GOAL := help

GO      ?= go
BIN     := bin/banger
GUEST   := internal/guestbin/embed/banger-guest-amd64.zst
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/bangervm/banger/internal/version.version=$(VERSION)
SOURCES := $(shell find api client cmd guestapi internal -name '*.go' -not -name '*_test.go' 2>/dev/null) go.mod go.sum

# What `make run` runs: a shell where there is a terminal, else one command.
ARGS    ?= $(shell if [ -t 0 ] && [ -t 1 ]; then echo "vm run"; else echo "vm run --rm -- sh -c 'uname -srm; cat /etc/os-release'"; fi)

.PHONY: help run build test lint unit test-vm fuzz bench docs clean deps lab lab-shell lab-build lab-power-cut bench-lab bin/lab

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## install what running banger needs
	@scripts/deps run

run: deps build ## install what is missing, build, and run a machine (ARGS='vm run -- uname -a' passes other arguments)
	@$(BIN) $(ARGS)

build: $(BIN) ## bin/banger: one static binary

$(GUEST): $(SOURCES)
	@mkdir -p bin $(@D)
	CGO_ENABLED=0 GOOS=linux GOARCH=amd64 $(GO) build -trimpath -ldflags '-s -w -X main.build=$(VERSION)' -o bin/banger-guest ./cmd/banger-guest
	@$(GO) run ./internal/guestbin/pack bin/banger-guest $@

$(BIN): $(GUEST) $(SOURCES)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/banger

lint: $(GUEST) ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt -w these:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

test: ## static checks, unit tests with -race, real machines
	@scripts/deps test
	@scripts/test all

unit: $(GUEST) ## unit tests with -race
	@scripts/test unit

test-vm: build ## the tests that run real machines, as whoever calls
	@scripts/test vm

fuzz: $(GUEST) ## every fuzz target for a moment (FUZZTIME=2000x)
	@scripts/test fuzz

bench: build ## the figures of SPECIFICATION.md: a table and bench-results/*.json
	@scripts/deps bench
	$(GO) run ./tests/bench

# Make has an AS of its own, the assembler.
ifeq ($(origin AS),default)
AS :=
endif

# CMD reaches the lab untouched: make would expand its dollars.
export LAB_CMD = $(value CMD)

bin/lab: $(BIN)
	@CGO_ENABLED=0 $(GO) build -o $@ ./tests/lab

lab: bin/lab ## a host with real KVM, in emulation: its suite; or CMD='banger doctor', TEST=./PACKAGE RUN=TestX there (AS=dev, SYSTEMD=1, LAB='-timeout 20m')
	@scripts/deps lab
	@bin/lab $(if $(value CMD)$(TEST),run,suite) $(if $(SYSTEMD),-systemd) $(if $(AS),-as $(AS)) $(if $(TEST),-test $(TEST)) $(if $(RUN),-run '$(RUN)') $(LAB)

lab-shell: bin/lab ## a shell in it
	@scripts/deps lab
	@bin/lab shell $(if $(SYSTEMD),-systemd) $(if $(AS),-as $(AS)) $(LAB)

bench-lab: bin/lab ## the figures that need KVM: a table and bench-results/lab.json (LAB='-works run-qemu -boots 1')
	@scripts/deps lab
	@bin/lab bench $(LAB)

lab-power-cut: bin/lab ## cut its power under root disks of device-mapper's, boot it again and look
	@scripts/deps lab
	@tests/lab/powercut.sh

lab-build: bin/lab ## fill its cache
	@scripts/deps lab
	@bin/lab build

docs: build ## docs/reference and api/openapi.json from the code
	$(GO) test ./internal/cli/gendocs ./internal/daemon -count=1 -run 'Reference|OpenAPI' -update

clean: ## remove what make made
	rm -rf bin bench-results internal/guestbin/embed/*.zst
