# make          builds ./agentcage, static and reproducible
# make test     everything that CI runs; installs what it needs on Debian and Ubuntu
# make lint     static checks and the layer rules, with pinned tools
# make bench    the gateway beside other proxies; SHORT=1 for 30 seconds
# make fuzz     every fuzz target in turn, FUZZTIME each (default 30s)
# make docs     regenerates what is generated under docs/
# make install  copies ./agentcage to $(DESTDIR)$(PREFIX)/bin

SHELL  := /bin/bash
PREFIX ?= /usr/local

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s

# The version comes by -X and not from the checkout's VCS stamp, so that a tree
# owned by somebody else builds too and the same source gives the same bytes.
GOFLAGS_BUILD := -trimpath -buildvcs=false -ldflags '-s -w -X github.com/agentcage/agentcage/internal/cli.Version=$(VERSION)'

TOOLSUM := tools/go.mod tools/go.sum

.PHONY: all build test lint fmt bench fuzz docs clean install needs
.DELETE_ON_ERROR:

all: build

build:
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o agentcage ./cmd/agentcage

needs:
	@tools/needs.sh

test: needs build bin/skipcheck
	@tools/test.sh

lint: bin/golangci-lint
	bin/golangci-lint run ./...
	cd tools && ../bin/golangci-lint run --config ../.golangci.yml ./...
	cd bench && ../bin/golangci-lint run --config ../.golangci.yml ./...

fmt: bin/golangci-lint
	bin/golangci-lint fmt ./...

bench: build
	cd bench && CGO_ENABLED=0 go build -trimpath -o ../bin/bench .
	bin/bench -agentcage ./agentcage $(if $(SHORT),-short) $(if $(WRITE),-write docs/benchmarks.md)

fuzz:
	@FUZZTIME=$(FUZZTIME) tools/fuzz.sh

docs: build
	@if [ -d internal/tools/gendocs ]; then go run ./internal/tools/gendocs docs; else echo 'nothing is generated yet'; fi

install: build
	install -D -m 0755 agentcage $(DESTDIR)$(PREFIX)/bin/agentcage

clean:
	rm -rf agentcage bin dist bench/out

bin/golangci-lint: $(TOOLSUM)
	cd tools && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

bin/skipcheck: $(wildcard tools/skipcheck/*.go) tools/go.mod
	cd tools && CGO_ENABLED=0 go build -trimpath -o ../$@ ./skipcheck
